# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` puts where. Included last, so it sees which parts were built.
include(CMakePackageConfigHelpers)

set(shmq_package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/shmq)

# Libraries and headers. pin.h only comes with its library.
install(TARGETS shmq EXPORT shmq-targets)
install(DIRECTORY libshmq/include/shmq TYPE INCLUDE FILES_MATCHING PATTERN "*.h" PATTERN pin.h EXCLUDE)
# From the pkg-config file back to the prefix, so that the prefix may move.
file(RELATIVE_PATH shmq_pc_up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(cmake/shmq.pc.in shmq.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/shmq.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

if(TARGET shmq-pin)
  set_target_properties(shmq-pin PROPERTIES EXPORT_NAME pin)
  install(TARGETS shmq-pin EXPORT shmq-targets)
  install(FILES libshmq/include/shmq/pin.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/shmq)
  configure_file(cmake/shmq-pin.pc.in shmq-pin.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/shmq-pin.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()

# find_package(shmq): targets shmq::shmq and shmq::pin.
install(EXPORT shmq-targets NAMESPACE shmq:: DESTINATION ${shmq_package_dir})
write_basic_package_version_file(shmq-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES cmake/shmq-config.cmake ${PROJECT_BINARY_DIR}/shmq-config-version.cmake
  DESTINATION ${shmq_package_dir})

# Every program that tools/ and daemon/ build. shmqd too stands in bin: anybody may run one of his own.
foreach(folder tools daemon)
  if(EXISTS ${PROJECT_SOURCE_DIR}/${folder}/CMakeLists.txt)
    get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
    foreach(target IN LISTS targets)
      get_target_property(type ${target} TYPE)
      get_target_property(left_out ${target} EXCLUDE_FROM_ALL)
      if(type STREQUAL "EXECUTABLE" AND NOT left_out)
        install(TARGETS ${target})
      endif()
    endforeach()
  endif()
endforeach()

# Manual pages by their section; what a program prints about itself is installed where it is built.
file(GLOB manual_pages CONFIGURE_DEPENDS man/*.[1-8])
foreach(page IN LISTS manual_pages)
  string(REGEX MATCH "[1-8]$" section ${page})
  install(FILES ${page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
endforeach()
install(FILES LICENSE CHANGELOG.md TYPE DOC)
