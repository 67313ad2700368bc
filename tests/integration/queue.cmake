# SPDX-License-Identifier: Apache-2.0
# The library between processes, as anybody uses it: plain programs, because they fork, exec and get killed.

function(queue_test name)
  shmq_test(NAME ${name} PLAIN LABELS integration SOURCES ${name}.c ${ARGN})
endfunction()

queue_test(queue_faults TIMEOUT 120)
queue_test(queue_quiet TIMEOUT 120)
queue_test(queue_event TIMEOUT 180)
if(TARGET queue_event)
  add_test(NAME queue_event_thread COMMAND ${shmq_launcher} $<TARGET_FILE:queue_event>)
  shmq_test_properties(queue_event_thread LABELS integration TIMEOUT 180 ENV SHMQ_EVENT_FD_THREAD=1)
endif()
queue_test(queue_processes TIMEOUT 180)

# A million messages of up to 1 MiB are 78 GB to copy: the sanitizers' builds send fewer.
set(shmq_million 1000000)
if(SHMQ_SANITIZE)
  set(shmq_million 100000)
endif()
queue_test(queue_million LIBS shmq::shmq m ARGS 1 1 ${shmq_million} TIMEOUT 900)
if(TARGET queue_million)
  math(EXPR shmq_quarter "${shmq_million} / 4")
  add_test(NAME queue_million_4x4 COMMAND ${shmq_launcher} $<TARGET_FILE:queue_million> 4 4 ${shmq_quarter})
  shmq_test_properties(queue_million_4x4 LABELS integration TIMEOUT 900)
endif()
