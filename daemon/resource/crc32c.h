/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQD_RESOURCE_CRC32C_H
#define SHMQD_RESOURCE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* CRC-32C (Castagnoli; RFC 3720) of data, going on from `crc` (0 at first). */
uint32_t crc32c(uint32_t crc, const void *data, size_t size);

#endif
