/* SPDX-License-Identifier: Apache-2.0
 *
 * Finding and printing what the inspection calls of the library show, for the commands that look.
 */
#ifndef TOOLS_BASE_VIEW_H
#define TOOLS_BASE_VIEW_H

#include <stdbool.h>

#include <shmq/inspect.h>

#include "base/json.h"
#include "base/parse.h"

/* Check the name, which may have a queue part if `queue_allowed`; complains. Returns a status. */
int check_name(const char *name, bool queue_allowed, struct address *address);

/* Open a view of the segment of `name` and find the queue it names; complains. Returns a status. */
int view_at(const char *name, shmq_view **view, uint32_t *queue);

/* The name of the queue with this index, as used on the command line. */
void queue_label(const char *segment, uint32_t index, const char *queue, char *text, size_t size);

/* One of the many queues that a service answers through: of no interest in a list. */
bool is_answer_queue(shmq_view *view, const shmq_queue_info *queue);

extern const char *const full_policies[]; /* by enum shmq_full_policy; ends with NULL */
const char *reason_text(int32_t reason);

/* The pairs that describe a queue, a segment or a participant, into the object that is open. */
void json_queue(struct json *json, shmq_view *view, const shmq_queue_info *queue);
void json_segment(struct json *json, const shmq_segment_info *segment);
void json_participant(struct json *json, const shmq_participant_info *participant);
void json_cause(struct json *json, const char *key, const shmq_cause *cause);

#endif
