# SPDX-License-Identifier: Apache-2.0
# Compiler flags of the whole project.

# Written with an empty value so that a file may define it itself without a redefinition warning.
add_compile_definitions($<$<COMPILE_LANGUAGE:C>:_GNU_SOURCE=>)

if(CMAKE_C_COMPILER_ID STREQUAL "Clang" AND SHMQ_EVERYTHING)
  # Everything that this compiler knows, less what contradicts C11 systems code or our layout.
  add_compile_options(
    -Weverything
    -Wno-atomic-implicit-seq-cst        # seq_cst is what we mean where no order is written
    -Wno-bad-function-cast
    -Wno-cast-align -Wno-cast-qual      # offsets in a segment become typed pointers
    -Wno-comma                          # an operation and its scheduling point are one expression
    -Wno-conditional-uninitialized      # gcc's -Wmaybe-uninitialized and the analyser know more
    -Wno-covered-switch-default -Wno-switch-enum
    -Wno-declaration-after-statement    # C90
    -Wno-disabled-macro-expansion       # glibc's headers
    -Wno-documentation -Wno-documentation-unknown-command
    -Wno-format-nonliteral
    -Wno-gnu-auto-type -Wno-gnu-statement-expression -Wno-gnu-zero-variadic-macro-arguments
    -Wno-missing-noreturn
    -Wno-padded
    -Wno-reserved-identifier -Wno-reserved-macro-identifier
    -Wno-sign-conversion -Wno-implicit-int-conversion
    -Wno-unused-macros
    $<$<COMPILE_LANGUAGE:CXX>:-Wno-c++98-compat-pedantic>)
else()
  add_compile_options(
    -Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -Wvla -Wundef -Wpointer-arith -Wwrite-strings -Wformat=2
    -Wno-format-nonliteral -Wdouble-promotion
    $<$<COMPILE_LANGUAGE:C>:-Werror=implicit-function-declaration>
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes>
    $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
    $<$<COMPILE_LANGUAGE:C>:-Wold-style-definition>)
  if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
    add_compile_options(-Wduplicated-cond -Wlogical-op)
  endif()
endif()

if(SHMQ_WERROR)
  add_compile_options(-Werror)
endif()

add_link_options(-Wl,-z,relro -Wl,-z,now)
if(SHMQ_SANITIZE)
  add_compile_options(-fsanitize=${SHMQ_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  add_link_options(-fsanitize=${SHMQ_SANITIZE})
endif()
