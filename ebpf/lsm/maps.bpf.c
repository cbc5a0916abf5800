/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The shared maps and nothing else.
 *
 * Loaded first, so that the maps exist and are pinned also on a host where no LSM program may be loaded and only the
 * budget and the network programs run.
 */
#include "kernel.h"
#include "maps.h"

char LICENSE[] SEC("license") = "GPL";
