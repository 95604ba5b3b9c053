/* qcow2ext: which filters lie between this one and the client.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2EXT_FILTERS_ABOVE_H
#define QCOW2EXT_FILTERS_ABOVE_H

/* The name of a filter above that keeps what it knows of one export for all of
 * them, as nbdkit's cow, cache and cacheextents do; NULL: there is none.  To be
 * called once all filters are loaded.
 */
const char *filters_above_mix (void);

#endif /* QCOW2EXT_FILTERS_ABOVE_H */
