/* qcow2ext: what a store returns for an error of a file or of a layer below.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef STORE_ERROR_H
#define STORE_ERROR_H

#include <errno.h>
#include <stdbool.h>

/* Above stores these numbers are answers: try again, others are at it, the
 * image cannot be written to, another program has changed it.  From a disk they
 * would be taken for such an answer, and a request be tried without end.
 */
static inline bool
is_answer_of_ours (int error)
{
  return error == EAGAIN || error == EBUSY || error == EROFS
    || error == ESTALE;
}

static inline int
store_error (int error)
{
  return is_answer_of_ours (error) ? -EIO : -error;
}

#endif /* STORE_ERROR_H */
