# towline_layer(<name> <folder> SEES <folder>... [LINK <target>...])
#
# Makes the object library <name> from every source under core/src/<folder>. It can include the public
# headers, its own folder and the folders it SEES, and nothing else: its include root is a folder of links to
# exactly these. A folder that is missing or has no sources is skipped; its headers are still visible to the
# layers above. The objects of all layers are collected in the global property TOWLINE_LAYERS.
function(towline_layer name folder)
  cmake_parse_arguments(PARSE_ARGV 2 arg "" "" "SEES;LINK")
  set(source "${PROJECT_SOURCE_DIR}/core/src")
  file(GLOB_RECURSE files CONFIGURE_DEPENDS "${source}/${folder}/*.cpp")
  if(NOT files)
    return()
  endif()
  set(root "${PROJECT_BINARY_DIR}/see/${name}")
  file(REMOVE_RECURSE "${root}")
  foreach(seen IN LISTS folder arg_SEES)
    get_filename_component(parent "${root}/${seen}" DIRECTORY)
    file(MAKE_DIRECTORY "${parent}")
    file(CREATE_LINK "${source}/${seen}" "${root}/${seen}" SYMBOLIC)
  endforeach()
  add_library(${name} OBJECT ${files})
  target_include_directories(${name} PRIVATE "${root}" "${PROJECT_SOURCE_DIR}/core/include")
  towline_layer_properties(${name} ${arg_LINK})
endfunction()

# What every object library of the library itself has in common.
function(towline_layer_properties name)
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON CXX_EXTENSIONS OFF)
  target_link_libraries(${name} PRIVATE towline_flags towline_warnings towline_headers_only ${ARGN})
  set_property(GLOBAL APPEND PROPERTY TOWLINE_LAYERS ${name})
endfunction()
