// Naming what was thrown: the class for failures of a standard kind, the text for texts.

#include "engine/thrown.hpp"

#include <cstdlib>
#include <string>
#include <typeinfo>

#include <cxxabi.h>

namespace towline::engine {
namespace {

std::string type_name(const std::type_info* type) {
  if (type == nullptr) return "unknown";
  int status = 0;
  char* text = abi::__cxa_demangle(type->name(), nullptr, nullptr, &status);
  std::string name = status == 0 && text != nullptr ? text : type->name();
  std::free(text);
  return name;
}

}  // namespace

Outcome outcome_of_thrown() {
  try {
    throw;
  } catch (const HandlerError& error) {
    Outcome outcome = Outcome::fail(error.info());
    outcome.delay = error.retry_after();
    return outcome;
  } catch (const Exception& error) {
    return Outcome::fail({std::string(error.error().wire_code()), error.error().message, {}});
  } catch (const std::exception& error) {
    const char* what = error.what();
    return Outcome::fail({type_name(&typeid(error)), what != nullptr ? what : "", {}});
  } catch (const std::string& text) {
    return Outcome::fail({"std::string", text, {}});
  } catch (const char* text) {
    return Outcome::fail({"const char*", text != nullptr ? text : "", {}});
  } catch (...) {
    return Outcome::fail({type_name(abi::__cxa_current_exception_type()), "not an exception class", {}});
  }
}

}  // namespace towline::engine
