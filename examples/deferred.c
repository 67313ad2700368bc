/* SPDX-License-Identifier: Apache-2.0
 *
 * deferred: ask for all words at once, and let steps run as the answers come.
 *   deferred SERVICE WORD...
 */
#include <errno.h>
#include <shmq/rpc.h>
#include <stdio.h>
#include <string.h>

static int check_length(shmq_result *r, void *word) {
  (void)word;
  return r->size > 4 ? -EMSGSIZE : 0; /* an error from here on: the next step's on_error sees it */
}

static int print_value(shmq_result *r, void *word) {
  printf("%s: %.*s\n", (const char *)word, (int)r->size, (const char *)r->data);
  return 0;
}

static int print_error(shmq_result *r, void *word) {
  printf("%s: %s\n", (const char *)word, shmq_strerror(r->status));
  return 0; /* dealt with */
}

static int ask(shmq_client *client, char *word) {
  struct iovec part = {word, strlen(word)};
  shmq_ask what = {.parts = &part, .part_count = 1};
  shmq_future *future;
  int rc = shmq_request(client, &what, shmq_after_ns(60000000000), &future);
  if (!rc) rc = shmq_then(future, check_length, NULL, word);
  if (!rc) rc = shmq_then(future, print_value, print_error, word);
  return rc;
}

int main(int argc, char **argv) {
  shmq_client *client = NULL;
  int rc = argc > 2 ? shmq_client_open(&client, argv[1], 0) : -EINVAL;
  int waiting = 0;
  for (int i = 2; rc >= 0 && i < argc; i++, waiting++) rc = ask(client, argv[i]);
  for (; rc >= 0 && waiting > 0; waiting -= rc) rc = shmq_run_pending(client, SHMQ_FOREVER);
  shmq_client_close(client); /* and the futures with it */
  if (rc < 0) fprintf(stderr, "deferred: %s\n", shmq_strerror(rc));
  return rc < 0;
}
