/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What may an agent do?
 *
 * Every LSM hook that stands between an agent and the rest of the host, in one object, so that they share one decision
 * (decide.h) and the verifier checks it once. The hooks are grouped by question; each group's head lists hook and duty,
 * and ebpf/README.md has them all with their tests. A hook is four steps: honour an earlier refusal, find the agent,
 * decide, report. (`ret` is only looked at where its position is the same on all kernels: the kernel calls no further
 * BPF program after one that refused, so a hook that does not see `ret` cannot soften anything either.)
 */
#include "kernel.h"
#include "maps.h"

#include "level.h"
#include "object.h"
#include "walk.h"
#include "cache.h"
#include "agent.h"
#include "report.h"
#include "decide.h"
#include "keep.h"

#include "files.h"
#include "names.h"
#include "attributes.h"
#include "processes.h"
#include "sockets.h"
#include "guards.h"

char LICENSE[] SEC("license") = "GPL";
