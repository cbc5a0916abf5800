/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What is said about a refusal?
 *
 * One event in the ring buffer: what was asked, of which object, and which rule stood against it. Per agent at most 200
 * a second; what is above that, or finds the ring full, is counted in the agent's slot and the count is carried by the
 * agent's next event. Whether anything could be said never changes the verdict.
 */
#ifndef AGENTD_REPORT_H
#define AGENTD_REPORT_H

#define REPORTS_A_SECOND 200
#define SECOND_NS 1000000000ULL

static __always_inline void head(struct agentd_event *event, __u32 kind, const struct agentd_agent *agent)
{
	__u64 id = bpf_get_current_pid_tgid();

	event->kind = kind;
	event->agent = agent->number;
	event->time_ns = bpf_ktime_get_ns();
	event->pid = id >> 32;
	event->tid = id;
	event->suppressed = 0;
	if (bpf_get_current_comm(event->comm, sizeof(event->comm)))
		event->comm[0] = 0;
}

#ifndef AGENTD_BUDGET_ONLY

/*
 * Counts a refusal and says whether it may be reported. Two CPUs that open a new second together may let 200 more
 * through; that is harmless and cheaper than a lock.
 */
static __always_inline bool may_report(struct agentd_agent *agent)
{
	__u64 now = bpf_ktime_get_ns();

	__sync_fetch_and_add(&agent->denials, 1);
	if (now - agent->report_window_ns >= SECOND_NS) {
		agent->report_window_ns = now;
		agent->reports_in_window = 0;
	}
	if (__sync_fetch_and_add(&agent->reports_in_window, 1) < REPORTS_A_SECOND)
		return true;
	__sync_fetch_and_add(&agent->suppressed, 1);
	return false;
}

/*
 * Takes over the count of what was not said. The daemon shows the sum of `suppressed` over all events and the slot.
 * An exchange, so that two processors cannot take the same count.
 */
static __always_inline void carry(struct agentd_event *event, struct agentd_agent *agent)
{
	if (agent->suppressed)
		event->suppressed = __sync_lock_test_and_set(&agent->suppressed, 0);
}

static __always_inline void report_guard(struct agentd_agent *agent, __u32 hook, __u32 reason, __u64 detail,
					 __u64 detail2)
{
	struct agentd_guard_event *event;

	if (!may_report(agent))
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&agent->suppressed, 1);
		return;
	}
	head(&event->head, AGENTD_EV_GUARD_DENIED, agent);
	carry(&event->head, agent);
	event->hook = hook;
	event->reason = reason;
	event->detail = detail;
	event->detail2 = detail2;
	bpf_ringbuf_submit(event, 0);
}

/* Longest name that is copied; the room that must be left before another one is begun. */
#define NAME_ROOM 256

/*
 * Writes the names from the object up to the root, each with its NUL. Same way up as in walk.h. The offset lives in the
 * event and is read back at every level, so that the verifier sees 64 equal rounds and not 64 * 256 offsets.
 */
static __always_inline void write_path(struct agentd_file_event *event, const struct question *q, const bool direct)
{
	volatile __u32 *used = &event->path_bytes;
	volatile __u32 *levels = &event->levels;
	struct mount *mnt = AS(struct mount, q->mount);
	struct dentry *d = AS(struct dentry, q->dentry);

	*used = 0;
	*levels = 0;
	for (int i = 0; i < AGENTD_MAX_DEPTH; i++) {
		if (d == GET(mnt, mnt.mnt_root)) {
			struct mount *below = GET(mnt, mnt_parent);

			if (below == mnt)
				return;
			d = GET(mnt, mnt_mountpoint);
			mnt = below;
		} else {
			struct dentry *parent = GET(d, d_parent);
			__u32 off = *used;
			long n;

			if (off > AGENTD_PATH_BYTES - NAME_ROOM) {
				*used = AGENTD_PATH_BYTES;
				return;
			}
			n = bpf_probe_read_kernel_str(&event->path[off], NAME_ROOM, (void *)GET(d, d_name.name));
			if (n <= 0 || parent == d)
				return;
			*used = off + n;
			*levels += 1;
			d = parent;
		}
	}
}

/* Reports a refused file access. `right`: what was not had. */
__noinline int report_file(const struct question *q, __u32 reason, __u32 right, __u32 rule_id)
{
	struct agentd_file_event *event;
	struct agentd_agent *agent;
	__u32 slot;

	if (!q)
		return 0;
	slot = q->slot;
	agent = bpf_map_lookup_elem(&agents, &slot);
	if (!agent || !may_report(agent))
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		__sync_fetch_and_add(&agent->suppressed, 1);
		return 0;
	}
	head(&event->head, AGENTD_EV_FILE_DENIED, agent);
	carry(&event->head, agent);
	event->hook = q->hook;
	event->reason = reason;
	event->right = right;
	event->rule_id = rule_id;
	{
		const bool direct = false;
		struct dentry *d = (void *)q->dentry, *dir = GET(d, d_parent);
		struct super_block *sb = GET(d, d_sb);
		struct inode *inode = (void *)q->inode;
		struct object o;

		if (!inode)
			inode = GET(dir, d_inode);
		o = object_of(inode, sb, direct);
		/* For people, who know no addresses (object.h). */
		event->object.dev = o.dev == DEV_OVERLAY ? GET(sb, s_dev) : o.dev;
		event->object.reserved = 0;
		event->object.ino = GET(inode, i_ino);
	}
	write_path(event, q, false);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
#endif
