// A shared object with towline inside, as a language binding is: only its entry point may be seen from
// outside, or two such objects in one process would run each other's code.
#include <towline/towline.hpp>

extern "C" __attribute__((visibility("default"))) int plugin_entry() {
  auto engine = towline::Engine::open("memory:");
  return engine ? 0 : 1;
}
