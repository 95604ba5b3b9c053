/* qcow2ext: threads that help with a request of many parts.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_CREW_H
#define QCOW2_CREW_H

#include <stddef.h>

/* A crew serves any number of requests at once.  Its threads are started when
 * they are first needed, with all signals blocked, so that a server may fork
 * between crew_new and the first request.
 */
struct crew;

/* threads is the most that are started; 0: as many as there are processors
 * for us, less one for the thread that asks.  Returns NULL if there is no
 * memory.
 */
struct crew *crew_new (unsigned threads);

/* Ends the threads.  No request may be under way. */
void crew_free (struct crew *crew);

/* Calls work (opaque, i) once for each i < parts, on this thread and on those
 * of the crew that have nothing else to do, in any order.  Returns when all
 * calls have ended: 0, or the result of one that was not 0.  After such a one
 * no further call begins.  Without a crew (NULL) this thread does it all.
 * Locks that are held during the call must not be taken by work.
 */
int crew_run (struct crew *crew, size_t parts,
              int (*work) (void *opaque, size_t i), void *opaque);

#endif /* QCOW2_CREW_H */
