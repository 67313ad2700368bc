# SPDX-License-Identifier: Apache-2.0
# The daemon.

if(NOT TARGET shmqd)
  return()
endif()

if(TARGET shmq-tool)
  shmq_script_test(NAME daemon_config LABELS integration TIMEOUT 600
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/daemon_config.sh)
  shmq_script_test(NAME daemon_unit LABELS integration TIMEOUT 300
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/daemon_unit.sh)
endif()

# The seam to the kernel's I/O, by itself.
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
pkg_check_modules(liburing REQUIRED IMPORTED_TARGET liburing>=2.3)
pkg_check_modules(inih REQUIRED IMPORTED_TARGET inih)
set(rungs uring-futex uring-eventfd uring-plain threads)
set(forbidden no-uring) # auto, where seccomp forbids io_uring
if(NOT SHMQ_SANITIZE) # the others differ in no code that an optimiser would treat otherwise
  set(rungs uring-futex threads)
  set(forbidden)
endif()
set(seam io.c io_bells.c io_threads.c io_uring.c pool.c say.c)
list(TRANSFORM seam PREPEND ${PROJECT_SOURCE_DIR}/daemon/)
foreach(rung IN LISTS rungs)
  shmq_test(NAME daemon_io_${rung} PROGRAM daemon_io LABELS integration SOURCES daemon_io.c ${seam} TIMEOUT 240
    LIBS shmq::shmq PkgConfig::liburing Threads::Threads ENV SHMQD_DAEMON_IO=${rung})
endforeach()
shmq_test(NAME daemon_mapped LABELS integration SOURCES daemon_mapped.c ${PROJECT_SOURCE_DIR}/daemon/resource/mapped.c
  ${PROJECT_SOURCE_DIR}/daemon/cut.c ${seam} TIMEOUT 240 LIBS shmq::shmq PkgConfig::liburing Threads::Threads)
foreach(program daemon_io daemon_mapped)
  if(TARGET ${program})
    target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR}/daemon)
  endif()
endforeach()

# The whole on each of its rungs, and where io_uring is forbidden.
set(parts dir dir_escape dir_mapped dir_model guard kv log pool process rights restart session stream timer)
foreach(part IN LISTS parts)
  foreach(rung IN LISTS rungs forbidden)
    set(env SHMQD_DAEMON_IO=${rung} TEST_RUNG=${rung})
    if(rung STREQUAL no-uring)
      set(env SHMQD_DAEMON_IO=auto TEST_RUNG=threads TEST_FORBID_URING=1)
    endif()
    shmq_test(NAME daemon_${part}_${rung} PROGRAM daemon_${part} LABELS integration TIMEOUT 240
      SOURCES daemon_${part}.c ENV ${env})
  endforeach()
endforeach()
foreach(rung IN LISTS rungs ITEMS shards)
  set(env SHMQD_DAEMON_IO=${rung})
  if(rung STREQUAL shards)
    set(env SHMQD_DAEMON_IO=uring-futex SHMQD_DAEMON_SHARDS=3)
  endif()
  shmq_test(NAME daemon_aside_${rung} PROGRAM daemon_aside LABELS integration SOURCES daemon_aside.c TIMEOUT 600
    PLAIN ENV ${env})
endforeach()

# Several shards, by themselves; and those of the above that hold, keep or wait for something, on three.
foreach(rung uring-futex threads)
  shmq_test(NAME daemon_shards_${rung} PROGRAM daemon_shards LABELS integration SOURCES daemon_shards.c TIMEOUT 240
    ENV SHMQD_DAEMON_IO=${rung})
endforeach()
foreach(part dir dir_mapped guard log pool process rights restart session stream)
  shmq_test(NAME daemon_${part}_shards PROGRAM daemon_${part} LABELS integration TIMEOUT 240
    SOURCES daemon_${part}.c ENV SHMQD_DAEMON_IO=uring-futex TEST_RUNG=uring-futex SHMQD_DAEMON_SHARDS=3)
endforeach()

# A million commands of Redis, where no sanitizer makes that long.
if(NOT SHMQ_SANITIZE)
  shmq_test(NAME daemon_stream_million PROGRAM daemon_stream LABELS integration SOURCES daemon_stream.c TIMEOUT 600
    ARGS --filter daemon_stream/redis_answers_each_client_its_own
    ENV SHMQD_DAEMON_IO=auto TEST_COMMANDS=1000000)
endif()

# The worker and the clients are killed; scripts/daemon-kill.sh does it for longer.
foreach(rung uring threads shards)
  set(env SHMQD_DAEMON_IO=${rung})
  if(rung STREQUAL uring)
    set(env SHMQD_DAEMON_IO=auto)
  elseif(rung STREQUAL shards)
    set(env SHMQD_DAEMON_IO=auto SHMQD_DAEMON_SHARDS=3)
  endif()
  shmq_test(NAME daemon_kill_${rung} PROGRAM daemon_kill LABELS integration SOURCES daemon_kill.c TIMEOUT 900
    PLAIN ENV ${env})
endforeach()

# Services.
if(SHMQ_TESTS AND TARGET shmq-tool AND TARGET shmq-sqlite AND NOT SHMQ_SANITIZE MATCHES thread)
  add_executable(daemon_helper daemon_helper.c)
  target_link_libraries(daemon_helper PRIVATE shmq::shmq)
  target_include_directories(daemon_helper PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  shmq_script_test(NAME daemon_service LABELS integration TIMEOUT 600
    COMMAND ${CMAKE_CURRENT_SOURCE_DIR}/daemon_service.sh)
endif()

# A thousand sessions, idle.
foreach(rung IN LISTS rungs)
  shmq_test(NAME daemon_idle_${rung} PROGRAM daemon_idle LABELS integration SOURCES daemon_idle.c TIMEOUT 600
    PLAIN ENV SHMQD_DAEMON_IO=${rung})
endforeach()

# Under a service manager that keeps descriptors.
shmq_test(NAME daemon_store LABELS integration SOURCES daemon_store.c TIMEOUT 240 PLAIN)

# When the dead are started again, by itself.
shmq_test(NAME daemon_policy LABELS unit TIMEOUT 60
  SOURCES daemon_policy.c ${PROJECT_SOURCE_DIR}/daemon/supervisor/restart.c)

# Which keys a log knows, by itself.
shmq_test(NAME daemon_keys LABELS unit TIMEOUT 120
  SOURCES daemon_keys.c ${PROJECT_SOURCE_DIR}/daemon/resource/log_keys.c ${PROJECT_SOURCE_DIR}/daemon/resource/crc32c.c
  LIBS shmq::shmq)
foreach(program daemon_policy daemon_keys)
  if(TARGET ${program})
    target_include_directories(${program} PRIVATE ${PROJECT_SOURCE_DIR}/daemon)
  endif()
endforeach()

# The disk's errors: the daemon's own sources, linked with what makes its operations on files fail.
get_target_property(sources shmqd SOURCES)
list(FILTER sources INCLUDE REGEX "^/")
add_executable(shmqd-faults ${sources} ${PROJECT_SOURCE_DIR}/tests/support/faults.c)
target_include_directories(shmqd-faults PRIVATE ${PROJECT_SOURCE_DIR}/daemon ${PROJECT_SOURCE_DIR}/tests)
target_compile_options(shmqd-faults PRIVATE -Wno-missing-prototypes)
set_target_properties(shmqd-faults PROPERTIES C_VISIBILITY_PRESET default) # libraries see what is wrapped
target_link_libraries(shmqd-faults PRIVATE shmq::shmq shmq::pin PkgConfig::liburing PkgConfig::inih Threads::Threads)
foreach(call io_submit write pwrite pread preadv2 fsync fdatasync renameat)
  target_link_options(shmqd-faults PRIVATE -Wl,--wrap=${call})
endforeach()
foreach(rung IN LISTS rungs)
  shmq_test(NAME daemon_faults_${rung} PROGRAM daemon_faults LABELS integration SOURCES daemon_faults.c TIMEOUT 600
    ENV SHMQD_DAEMON_IO=${rung} TEST_SHMQD=tests/integration/shmqd-faults)
endforeach()

# Who builds one of these programs to run it has the daemon that it starts.
foreach(program IN LISTS parts ITEMS aside shards kill idle store)
  if(TARGET daemon_${program})
    add_dependencies(daemon_${program} shmqd)
  endif()
endforeach()
if(TARGET daemon_faults)
  add_dependencies(daemon_faults shmqd-faults)
endif()
