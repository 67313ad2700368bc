/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SHMQ_VERSION_H
#define SHMQ_VERSION_H

#define SHMQ_VERSION_MAJOR 0
#define SHMQ_VERSION_MINOR 1
#define SHMQ_VERSION_PATCH 0
#define SHMQ_VERSION "0.1.0"

#endif
