/* SPDX-License-Identifier: Apache-2.0
 *
 * A program against an installed shmq, in C++: every public header, one message there and back.
 */
#include <shmq/inspect.h>
#include <shmq/rpc.h>
#include <shmq/shmq.h>
#include <shmq/version.h>
#ifdef WITH_PIN
#include <shmq/pin.h>
#endif

#include <cstdio>
#include <cstring>
#include <unistd.h>

static int failed(const char *what, int code) {
  fprintf(stderr, "%s: %s\n", what, shmq_strerror(code));
  return 1;
}

int main(void) {
  char name[64], text[64];
  snprintf(name, sizeof name, "shmq.t-install-cc-%ld", (long)getpid());

  int rc = shmq_create(name, nullptr);
  if (rc < 0) return failed("create", rc);
  shmq *queue;
  rc = shmq_open(&queue, name, 0);
  if (rc < 0) return failed("open", rc);
  rc = shmq_put(queue, "hello", 6, SHMQ_NOWAIT);
  if (rc < 0) return failed("put", rc);
  ssize_t size = shmq_get(queue, text, sizeof text, SHMQ_NOWAIT);
  if (size < 0) return failed("get", (int)size);
  shmq_close(queue);
  rc = shmq_unlink(name);
  if (rc < 0) return failed("unlink", rc);

#ifdef WITH_PIN
  shmq_pin *pin;
  rc = shmq_pin_open(&pin);
  if (rc < 0) return failed("pin open", rc);
  rc = shmq_pin_count(pin, "compact");
  if (rc < 0) return failed("pin count", rc);
  printf("%d places, ", rc);
  shmq_pin_close(pin);
#endif

  int same = size == 6 && strcmp(text, "hello") == 0;
  printf("C++, shmq %s: %s\n", SHMQ_VERSION, same ? text : "wrong message");
  return same ? 0 : 1;
}
