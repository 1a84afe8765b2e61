# Language level, warnings, sanitizers and the helpers every folder's CMakeLists.txt uses.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(LONGWAVE_WORKER "Build kernels, worker and the program; OFF builds formats and scheduler alone" ON)
find_package(CUDAToolkit 12 QUIET)
if(LONGWAVE_SANITIZE)
  set(CUDAToolkit_FOUND OFF)  # the sanitizers know neither nvcc nor the emulator's fibers
endif()
option(LONGWAVE_CUDA "Build the CUDA backend, and its emulator for tests" ${CUDAToolkit_FOUND})
option(LONGWAVE_FUZZ "Build the libFuzzer targets (clang)" OFF)
set(LONGWAVE_SANITIZE "" CACHE STRING "address,undefined | thread | empty")

if(LONGWAVE_SANITIZE)
  set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")  # the sanitizers' own code is what takes time
  add_compile_options(-fsanitize=${LONGWAVE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${LONGWAVE_SANITIZE})
endif()
add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-Wall> $<$<COMPILE_LANGUAGE:C,CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:C,CXX>:-Wno-unused-parameter>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  add_compile_options($<$<COMPILE_LANGUAGE:C,CXX>:-Wno-restrict>)  # g++ 12 sees overlap in any std::string = "literal" (bug 105651)
endif()

# The program stands at the top of the build folder: build/longwave.
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

# longwave_library(NAME SOURCES ... DEPS ...): a static library, included as "folder/file.h" from the root.
function(longwave_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(${name} STATIC ${ARG_SOURCES})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_link_libraries(${name} PUBLIC ${ARG_DEPS} PRIVATE ${ARG_PRIVATE_DEPS})
endfunction()

# longwave_test_program(NAME LABEL fast|slow SOURCES ... DEPS ...): a GoogleTest binary that is one ctest.
function(longwave_test_program name)
  cmake_parse_arguments(ARG "" "LABEL" "SOURCES;DEPS" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest_main GTest::gmock)
  target_compile_definitions(${name} PRIVATE LONGWAVE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${ARG_LABEL} TIMEOUT 600)
endfunction()

# longwave_test(NAME LABEL fast|slow [FILTER ...] SOURCES ... DEPS ...): a GoogleTest binary, each case, of
# those that FILTER lets through, a ctest of its own.
function(longwave_test name)
  cmake_parse_arguments(ARG "" "LABEL;FILTER" "SOURCES;DEPS" ${ARGN})
  if(NOT BUILD_TESTING)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest_main GTest::gmock)
  target_compile_definitions(${name} PRIVATE LONGWAVE_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  gtest_discover_tests(${name} TEST_FILTER "${ARG_FILTER}" DISCOVERY_TIMEOUT 60 PROPERTIES LABELS ${ARG_LABEL} TIMEOUT 600)
endfunction()
