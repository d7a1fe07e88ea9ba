# Compiles through ccache where it is installed, unless the caller chose a launcher.
find_program(TOWLINE_CCACHE ccache)
mark_as_advanced(TOWLINE_CCACHE)
if(TOWLINE_CCACHE AND NOT DEFINED CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_C_COMPILER_LAUNCHER "${TOWLINE_CCACHE}")
  set(CMAKE_CXX_COMPILER_LAUNCHER "${TOWLINE_CCACHE}")
endif()
