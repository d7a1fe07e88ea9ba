# The compile and link flags of everything built here, as two interface targets that are linked privately, so
# none of them reaches a project that uses the library:
#   towline_flags     language level, hardening, sanitizer (SQLite gets these too)
#   towline_warnings  the warnings our own code is held to
if(NOT TOWLINE_SANITIZE MATCHES "^(address|thread)?$")
  message(FATAL_ERROR "TOWLINE_SANITIZE is '${TOWLINE_SANITIZE}'; it takes nothing, address or thread.")
endif()

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE RelWithDebInfo CACHE STRING "Build type" FORCE)
endif()

add_library(towline_flags INTERFACE)
add_library(towline_warnings INTERFACE)
target_compile_features(towline_flags INTERFACE cxx_std_20)
target_compile_options(towline_flags INTERFACE -fvisibility=hidden -fstack-protector-strong
                       $<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden>)
target_link_options(towline_flags INTERFACE -Wl,-z,relro,-z,now)
target_compile_options(towline_warnings INTERFACE -Wall -Wextra -Wpedantic -Wshadow
                       # GCC 12 sees overlaps inside std::string that are not there.
                       $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                       $<$<BOOL:${TOWLINE_WERROR}>:-Werror>)

if(TOWLINE_SANITIZE STREQUAL "address")
  set(sanitize -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer)
elseif(TOWLINE_SANITIZE STREQUAL "thread")
  set(sanitize -fsanitize=thread -fno-omit-frame-pointer)
else()
  set(sanitize "")
  # Fortified string functions need optimisation, and blind the address sanitizer's own checks.
  target_compile_options(towline_flags INTERFACE
                         "$<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=2>")
endif()
if(TOWLINE_BUILD_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "TOWLINE_BUILD_FUZZ needs clang, for libFuzzer; use the preset fuzz, or `make fuzz`.")
  endif()
  list(APPEND sanitize -fsanitize=fuzzer-no-link)
endif()
target_compile_options(towline_flags INTERFACE ${sanitize})
target_link_options(towline_flags INTERFACE ${sanitize})
unset(sanitize)
