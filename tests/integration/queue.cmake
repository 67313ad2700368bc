# SPDX-License-Identifier: Apache-2.0
# The library between processes, as anybody uses it: plain programs, because they fork, exec and get killed.

function(queue_test name)
  shmq_test(NAME ${name} PLAIN LABELS integration SOURCES ${name}.c ${ARGN})
  if(TARGET ${name})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  endif()
endfunction()

queue_test(queue_faults TIMEOUT 120)
