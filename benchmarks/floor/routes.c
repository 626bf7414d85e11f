/*
 * The floor of learned routes: what the kernel itself takes for many, asked in C.
 *
 * Reads lines and answers each with one: nanoseconds and a count, or "error N".
 *
 *   install COUNT FIRST GROUP ID GATEWAY INDEX ID GATEWAY INDEX
 *           two next hops, a group of both, COUNT /32s from FIRST on by that group: batches of
 *           32 KiB, of which only the last message is acknowledged
 *   dump    the routes of our protocol, filtered by the kernel, each walked over and counted
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/netlink.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PROTOCOL = 82, METRIC = 512, BATCH = 32000, ROOM = 1 << 18 };

static char batch[BATCH + 512], answer[ROOM];
static size_t used;

static struct nlmsghdr *begin(int type, int flags, const void *head, size_t size)
{
    struct nlmsghdr *h = (void *)(batch + used);
    memset(h, 0, NLMSG_SPACE(size));
    h->nlmsg_len = NLMSG_LENGTH(size);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | flags;
    memcpy(NLMSG_DATA(h), head, size);
    return h;
}

static void put(struct nlmsghdr *h, int type, const void *data, size_t size)
{
    struct rtattr *a = (void *)((char *)h + NLMSG_ALIGN(h->nlmsg_len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(size);
    memcpy(RTA_DATA(a), data, size);
    h->nlmsg_len = NLMSG_ALIGN(h->nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static void put_number(struct nlmsghdr *h, int type, uint32_t value)
{
    put(h, type, &value, sizeof value);
}

static void end(struct nlmsghdr *h)
{
    used += NLMSG_ALIGN(h->nlmsg_len);
}

/* Send the batch, of which `last` is to be acknowledged: 0, or the first error. */
static int transact(int fd, struct nlmsghdr *last)
{
    last->nlmsg_flags |= NLM_F_ACK;
    last->nlmsg_seq = 1;
    if (send(fd, batch, used, 0) < 0)
        return errno;
    used = 0;
    for (;;) {
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        if (got < 0)
            return errno;
        struct nlmsghdr *h = (void *)answer;
        for (; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
            struct nlmsgerr *e = NLMSG_DATA(h);
            if (h->nlmsg_type == NLMSG_ERROR && (e->error || h->nlmsg_seq == 1))
                return -e->error;
        }
    }
}

static int install(int fd, int count, uint32_t first, uint32_t group, const uint32_t *ids,
                   const uint32_t *gateways, const uint32_t *indexes)
{
    struct nhmsg hop = {.nh_family = AF_INET, .nh_protocol = PROTOCOL};
    struct nhmsg whole = {.nh_family = AF_UNSPEC, .nh_protocol = PROTOCOL};
    struct nexthop_grp members[2] = {{.id = ids[0]}, {.id = ids[1]}};
    struct rtmsg head = {.rtm_family = AF_INET, .rtm_dst_len = 32, .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = PROTOCOL, .rtm_scope = RT_SCOPE_UNIVERSE,
                         .rtm_type = RTN_UNICAST};
    struct nlmsghdr *h;
    for (int i = 0; i < 2; i++) {
        h = begin(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_EXCL, &hop, sizeof hop);
        put_number(h, NHA_ID, ids[i]);
        put_number(h, NHA_OIF, indexes[i]);
        put(h, NHA_GATEWAY, &gateways[i], 4);
        end(h);
    }
    h = begin(RTM_NEWNEXTHOP, NLM_F_CREATE | NLM_F_EXCL, &whole, sizeof whole);
    put_number(h, NHA_ID, group);
    put(h, NHA_GROUP, members, sizeof members);
    end(h);
    for (int i = 0; i < count; i++) {
        uint32_t to = htonl(ntohl(first) + i);
        h = begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
        put(h, RTA_DST, &to, 4);
        put_number(h, RTA_PRIORITY, METRIC);
        put_number(h, RTA_NH_ID, group);
        end(h);
        if (used >= BATCH || i == count - 1) {
            int failed = transact(fd, h);
            if (failed)
                return failed;
        }
    }
    return 0;
}

static int dump(int fd, int *count)
{
    struct rtmsg head = {.rtm_family = AF_INET, .rtm_table = RT_TABLE_MAIN,
                         .rtm_protocol = PROTOCOL};
    struct nlmsghdr *h = begin(RTM_GETROUTE, NLM_F_DUMP, &head, sizeof head);
    if (send(fd, h, h->nlmsg_len, 0) < 0)
        return errno;
    for (;;) {
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        if (got < 0)
            return errno;
        for (h = (void *)answer; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
            if (h->nlmsg_type == NLMSG_DONE)
                return 0;
            if (h->nlmsg_type == NLMSG_ERROR)
                return EIO;
            ++*count;
        }
    }
}

static int open_netlink(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), one = 1, room = ROOM;
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    return fd;
}

int main(void)
{
    char line[512], first[64], gateway[2][64];
    uint32_t ids[2], indexes[2], group;
    int fd = open_netlink(), count;
    while (fgets(line, sizeof line, stdin)) {
        struct timespec from, to;
        int failed = EINVAL, n = 0;
        clock_gettime(CLOCK_MONOTONIC, &from);
        if (sscanf(line, "install %d %63s %u %u %63s %u %u %63s %u", &count, first, &group, ids,
                   gateway[0], indexes, ids + 1, gateway[1], indexes + 1) == 9) {
            uint32_t gateways[2] = {inet_addr(gateway[0]), inet_addr(gateway[1])};
            failed = install(fd, n = count, inet_addr(first), group, ids, gateways, indexes);
        } else if (!strncmp(line, "dump", 4)) {
            failed = dump(fd, &n);
        }
        clock_gettime(CLOCK_MONOTONIC, &to);
        if (failed)
            printf("error %d\n", failed);
        else
            printf("%lld %d\n", (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec
                                    - from.tv_nsec, n);
        fflush(stdout);
    }
    return 0;
}
