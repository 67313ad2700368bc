# SPDX-License-Identifier: Apache-2.0
# Owners as programs, and the examples of the documentation.
if(TARGET shmq-tool AND TARGET shmq-sqlite)
  shmq_script_test(NAME sqlite_owner LABELS integration TIMEOUT 600
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/sqlite_owner.sh)
endif()

if(TARGET shmq-tool AND TARGET lru)
  foreach(part examples patterns)
    shmq_script_test(NAME ${part} LABELS integration TIMEOUT 600
      COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/${part}.sh)
  endforeach()
endif()
