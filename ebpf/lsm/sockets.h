/* SPDX-License-Identifier: GPL-2.0 */
/*
 * May it talk this way?
 *
 *   socket_create        only what can be checked: UNIX, TCP and UDP over IPv4 and IPv6, routing netlink
 *   socket_listen        only with an address that bind() was asked for
 *   unix_stream_connect, unix_may_send    a socket with a path: write on the path; an abstract one: of the same agent
 *
 * Addresses are decided in ebpf/net; TCP fast open comes to its connect programs.
 */

SEC("lsm/socket_create")
int BPF_PROG(socket_check, int family, int type, int protocol, int kern, int ret)
{
	struct asker who;

	if (ret)
		return ret;
	if (kern || !inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if (family == AF_UNIX || (family == AF_NETLINK && protocol == 0))
		return 0;
	if (family == AF_INET || family == AF_INET6) {
		if (type == SOCK_STREAM && (protocol == 0 || protocol == IPPROTO_TCP))
			return 0;
		if (type == SOCK_DGRAM && (protocol == 0 || protocol == IPPROTO_UDP))
			return 0;
	}
	report_guard(who.agent, AGENTD_H_SOCKET, AGENTD_WHY_GUARD, family, ((__u64)type << 32) | (__u32)protocol);
	return -EPERM;
}

/*
 * listen() on a socket without an address takes any port on every address, and no cgroup program is asked. bind() is; so
 * whoever wants to listen binds first.
 */
SEC("lsm/socket_listen")
int BPF_PROG(listen_check, struct socket *sock, int backlog, int ret)
{
	struct sock *sk = sock->sk;
	struct asker who;

	if (ret)
		return ret;
	if (!sk || !inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	if ((sk->__sk_common.skc_family != AF_INET && sk->__sk_common.skc_family != AF_INET6) || sk->__sk_common.skc_num)
		return 0;
	report_guard(who.agent, AGENTD_H_BIND, AGENTD_WHY_GUARD, 0, 0);
	return -EPERM;
}

/*
 * A socket without a name was made by socketpair and can only be reached by who holds its other end. `sun_path` of an
 * abstract name begins with a NUL; a socket with a path has its dentry, even if the file has been removed since.
 */
static __always_inline int decide_unix(struct sock *other)
{
	struct unix_sock *unix = (void *)other;
	struct question q = {};
	struct asker who;
	struct cgroup *cgroup;
	__u64 mnt;

	if (!inside(&who))
		return 0;
	if (!who.agent)
		return -EPERM;
	q.dentry = (__u64)BPF_CORE_READ(unix, path.dentry);
	if (q.dentry) {
		put_question(&q, &who, AGENTD_H_UNIX, AGENTD_WRITE);
		mnt = (__u64)BPF_CORE_READ(unix, path.mnt);
		q.inode = inode_at(q.dentry);
		q.mount = mount_of((void *)mnt);
		return decide(&q);
	}
	if (!BPF_CORE_READ(unix, addr))
		return 0;
	cgroup = other->sk_cgrp_data.cgroup;
	if (cgroup && agent_cgroup_id(cgroup) == who.agent->cgroup_id)
		return 0;
	report_guard(who.agent, AGENTD_H_UNIX, AGENTD_WHY_STRANGER, 0, 0);
	return -EPERM;
}

SEC("lsm/unix_stream_connect")
int BPF_PROG(unix_connect_check, struct sock *sock, struct sock *other, struct sock *newsk, int ret)
{
	return ret ?: decide_unix(other);
}

SEC("lsm/unix_may_send")
int BPF_PROG(unix_send_check, struct socket *sock, struct socket *other, int ret)
{
	struct sock *peer = other->sk;

	if (ret || !peer)
		return ret;
	return decide_unix(peer);
}
