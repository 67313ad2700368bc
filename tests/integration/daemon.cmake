# SPDX-License-Identifier: Apache-2.0
# The daemon.

if(NOT TARGET shmqd)
  return()
endif()

if(TARGET shmq-tool)
  shmq_script_test(NAME daemon_config LABELS integration TIMEOUT 600
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/daemon_config.sh)
endif()

# On each of its rungs.
foreach(part dir log pool session timer)
  foreach(rung uring uring-plain threads)
    shmq_test(NAME daemon_${part}_${rung} LABELS integration SOURCES daemon_${part}.c TIMEOUT 240
      ENV SHMQD_DAEMON_IO=${rung})
    if(TARGET daemon_${part}_${rung})
      target_include_directories(daemon_${part}_${rung} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
      add_dependencies(daemon_${part}_${rung} shmqd)
    endif()
  endforeach()
endforeach()
