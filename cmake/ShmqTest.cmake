# SPDX-License-Identifier: Apache-2.0
# How a test is declared. Both functions do nothing unless SHMQ_TESTS is on.
#
#   shmq_test(NAME name LABELS unit SOURCES a.c [PROGRAM name] [LIBS shmq-internal] [ARGS ..] [ENV K=V ..]
#             [DEFINES ..] [TIMEOUT 300] [PLAIN] [LOAD one])
#     A program. It links Criterion unless PLAIN (a main of its own, for fork, ptrace and TSan).
#     LIBS defaults to shmq::shmq; shmq-internal is the same sources with all symbols visible.
#     Tests that state the same PROGRAM are runs of one program, built as the first of them says.
#     Under the thread sanitizer only tests labelled tsan exist, and those must be PLAIN.
#
#   shmq_script_test(NAME name LABELS install COMMAND cmd args.. [ENV K=V ..] [TIMEOUT 300] [LOAD one])
#     A command. It finds SHMQ_SOURCE_DIR, SHMQ_BUILD_DIR, SHMQ_SANITIZE, CC in its environment.
#
# Both exit 77 to say "skipped: this machine lacks what the test needs".
#
# Most tests wait as long as they compute: for time, the disk or each other. So scripts/test.sh has CTest run two for
# each processor.
#   LOAD one: it keeps a processor busy for many seconds and counts as two. Such tests are started first.
#   LOAD all: it keeps all processors busy; no other test runs beside it.

# The sanitizers of gcc 12 and clang 14 fail at random where the kernel scatters mappings over more than 28 bits.
set(shmq_launcher "")
if(SHMQ_SANITIZE AND EXISTS /proc/sys/vm/mmap_rnd_bits)
  file(READ /proc/sys/vm/mmap_rnd_bits shmq_rnd_bits)
  if(shmq_rnd_bits GREATER 28)
    set(shmq_launcher setarch --addr-no-randomize)
  endif()
endif()

set(shmq_test_env
  SHMQ_SOURCE_DIR=${PROJECT_SOURCE_DIR}
  SHMQ_BUILD_DIR=${PROJECT_BINARY_DIR}
  SHMQ_SANITIZE=${SHMQ_SANITIZE}
  CC=${CMAKE_C_COMPILER}
  UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1)

function(shmq_test_properties name)
  cmake_parse_arguments(PARSE_ARGV 1 T "" "TIMEOUT;LOAD" "LABELS;ENV")
  if(NOT T_TIMEOUT)
    set(T_TIMEOUT 300)
  endif()
  set_tests_properties(${name} PROPERTIES
    LABELS "${T_LABELS}" TIMEOUT ${T_TIMEOUT} SKIP_RETURN_CODE 77
    ENVIRONMENT "${shmq_test_env};${T_ENV}")
  if(T_LOAD STREQUAL one)
    set_tests_properties(${name} PROPERTIES PROCESSORS 2 COST 60)
  elseif(T_LOAD STREQUAL all)
    set_tests_properties(${name} PROPERTIES RUN_SERIAL ON)
  elseif(T_LOAD)
    message(FATAL_ERROR "${name}: LOAD is one or all")
  endif()
endfunction()

# Of shmq_test, whose arguments it sees.
macro(shmq_test_program)
  if(NOT T_LIBS)
    set(T_LIBS shmq::shmq)
  endif()
  add_executable(${T_PROGRAM} ${T_SOURCES})
  target_link_libraries(${T_PROGRAM} PRIVATE ${T_LIBS})
  target_include_directories(${T_PROGRAM} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${T_PROGRAM} PRIVATE ${T_DEFINES})
  # A test's assert is a check in every build; Criterion's macros define undeclared things.
  target_compile_options(${T_PROGRAM} PRIVATE -UNDEBUG
    $<$<COMPILE_LANGUAGE:C>:-Wno-missing-prototypes>
    $<$<C_COMPILER_ID:Clang>:-Wno-missing-variable-declarations>)
  if(NOT T_PLAIN)
    find_package(PkgConfig REQUIRED)
    pkg_check_modules(criterion REQUIRED IMPORTED_TARGET GLOBAL criterion)
    target_link_libraries(${T_PROGRAM} PRIVATE PkgConfig::criterion)
  endif()
endmacro()

function(shmq_test)
  cmake_parse_arguments(PARSE_ARGV 0 T "PLAIN" "NAME;PROGRAM;TIMEOUT;LOAD" "LABELS;SOURCES;LIBS;ARGS;ENV;DEFINES")
  if(T_UNPARSED_ARGUMENTS OR NOT T_NAME OR NOT T_LABELS OR NOT T_SOURCES)
    message(FATAL_ERROR "shmq_test: NAME, LABELS and SOURCES are needed; not understood: ${T_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT SHMQ_TESTS OR (SHMQ_SANITIZE MATCHES thread AND NOT tsan IN_LIST T_LABELS))
    return()
  endif()
  if(NOT T_PROGRAM)
    set(T_PROGRAM ${T_NAME})
  endif()
  if(NOT TARGET ${T_PROGRAM})
    shmq_test_program()
  endif()
  add_test(NAME ${T_NAME} COMMAND ${shmq_launcher} $<TARGET_FILE:${T_PROGRAM}> ${T_ARGS})
  shmq_test_properties(${T_NAME} LOAD ${T_LOAD} LABELS ${T_LABELS} TIMEOUT ${T_TIMEOUT} ENV ${T_ENV})
endfunction()

function(shmq_script_test)
  cmake_parse_arguments(PARSE_ARGV 0 T "" "NAME;TIMEOUT;LOAD" "LABELS;COMMAND;ENV")
  if(T_UNPARSED_ARGUMENTS OR NOT T_NAME OR NOT T_LABELS OR NOT T_COMMAND)
    message(FATAL_ERROR "shmq_script_test: NAME, LABELS and COMMAND are needed; not understood: ${T_UNPARSED_ARGUMENTS}")
  endif()
  if(NOT SHMQ_TESTS OR (SHMQ_SANITIZE MATCHES thread AND NOT tsan IN_LIST T_LABELS))
    return()
  endif()
  add_test(NAME ${T_NAME} COMMAND ${shmq_launcher} ${T_COMMAND})
  shmq_test_properties(${T_NAME} LOAD ${T_LOAD} LABELS ${T_LABELS} TIMEOUT ${T_TIMEOUT} ENV ${T_ENV})
endfunction()
