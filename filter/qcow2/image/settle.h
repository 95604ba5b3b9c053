/* qcow2ext: the image while nobody uses it.
 * SPDX-License-Identifier: BSD-3-Clause
 */

#ifndef QCOW2_SETTLE_H
#define QCOW2_SETTLE_H

#include "map/layer.h"

/* See image_settle. */
int layer_settle (struct layer *layer, bool idle);

#endif /* QCOW2_SETTLE_H */
