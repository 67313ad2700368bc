/* SPDX-License-Identifier: Apache-2.0
 *
 * The one list of error codes; shmq_strerror, the manual page and the bindings are made from it.
 */
#ifndef SHMQ_BASE_ERROR_H
#define SHMQ_BASE_ERROR_H

#define SHMQ__ERRORS(X)                                                        \
  X(EAGAIN, "would block")                                                     \
  X(ETIMEDOUT, "deadline passed")                                              \
  X(EINTR, "interrupted by a signal handler")                                  \
  X(EMSGSIZE, "message too long")                                              \
  X(EPIPE, "queue is shut down")                                               \
  X(EEXIST, "exists already")                                                  \
  X(ENOENT, "does not exist")                                                  \
  X(EACCES, "permission denied")                                               \
  X(EPERM, "operation not permitted")                                          \
  X(ENOSPC, "no room, in shared memory or in the participant table")           \
  X(EPROTO, "segment has another layout version")                              \
  X(EBADMSG, "segment is damaged")                                             \
  X(EOWNERDEAD, "the server died holding the request")                         \
  X(ESTALE, "message is not the caller's any more")                            \
  X(ECANCELED, "cancelled")                                                    \
  X(EBUSY, "another participant holds the single producer or consumer role")   \
  X(EOPNOTSUPP, "queue was not created with this feature")                     \
  X(ENODATA, "nothing is kept about this")                                     \
  X(ENOTCONN, "not joined")                                                    \
  X(EINVAL, "invalid argument")                                                \
  X(ENAMETOOLONG, "name too long")                                             \
  X(ENOMEM, "out of memory")                                                   \
  X(EMFILE, "too many open files in this process")                             \
  X(ENFILE, "too many open files in the system")                               \
  X(ENOSYS, "not supported by this kernel")

#endif
