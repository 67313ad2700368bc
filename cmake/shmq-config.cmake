# SPDX-License-Identifier: Apache-2.0
# find_package(shmq [COMPONENTS pin]) gives shmq::shmq and, where it was built, shmq::pin.
include(${CMAKE_CURRENT_LIST_DIR}/shmq-targets.cmake)
if(TARGET shmq::pin)
  set(shmq_pin_FOUND TRUE)
endif()
foreach(component IN LISTS shmq_FIND_COMPONENTS)
  if(shmq_FIND_REQUIRED_${component} AND NOT shmq_${component}_FOUND)
    set(shmq_FOUND FALSE)
    set(shmq_NOT_FOUND_MESSAGE "shmq has no component ${component} here")
  endif()
endforeach()
