/*
 * The floor of an attach: what the kernel itself takes for one veth workload, asked in C.
 *
 * Reads lines "NAME NETNS-PATH ADDRESS INDEX" and attaches: a veth pair with chosen indexes, one
 * queue each, the inner end made directly in the namespace; the host side's settings inside the
 * message; gateway address, neighbour, /32 route; inside: lo and the link up, address, gateway
 * route, default route, neighbour. Three batches, as few system calls as can be. Answers one line:
 * the nanoseconds from opening the namespace to the last acknowledgement, or "error N".
 * "- INDEX" deletes a link (untimed).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/ip.h>
#include <linux/neighbour.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#ifndef GROUP
#define GROUP 29284
#endif
#ifndef PROTOCOL
#define PROTOCOL 82
#endif
enum { ROOM = 8192 };
static const unsigned char HOST_MAC[6] = {HOST_MAC_BYTES};

struct batch {
    char data[ROOM];
    size_t used;
    int count;
};

static struct nlmsghdr *begin(struct batch *b, int type, int flags, const void *head, size_t size)
{
    struct nlmsghdr *h = (void *)(b->data + b->used);
    memset(h, 0, NLMSG_SPACE(size));
    h->nlmsg_len = NLMSG_LENGTH(size);
    h->nlmsg_type = type;
    h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    h->nlmsg_seq = ++b->count;
    memcpy(NLMSG_DATA(h), head, size);
    return h;
}

static struct rtattr *put(struct nlmsghdr *h, int type, const void *data, size_t size)
{
    struct rtattr *a = (void *)((char *)h + NLMSG_ALIGN(h->nlmsg_len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(size);
    if (size)
        memcpy(RTA_DATA(a), data, size);
    h->nlmsg_len = NLMSG_ALIGN(h->nlmsg_len) + RTA_ALIGN(a->rta_len);
    return a;
}

static void put_number(struct nlmsghdr *h, int type, uint32_t value)
{
    put(h, type, &value, sizeof value);
}

static void close_nest(struct nlmsghdr *h, struct rtattr *a)
{
    a->rta_len = (char *)h + NLMSG_ALIGN(h->nlmsg_len) - (char *)a;
}

static void end(struct batch *b, struct nlmsghdr *h)
{
    b->used += NLMSG_ALIGN(h->nlmsg_len);
}

/* Send a batch, wait for every acknowledgement: 0, or the first error. */
static int transact(int fd, struct batch *b)
{
    char answer[ROOM];
    int left = b->count, failed = 0;
    if (send(fd, b->data, b->used, 0) < 0)
        return errno;
    while (left > 0) {
        ssize_t got = recv(fd, answer, sizeof answer, 0);
        if (got < 0)
            return errno;
        struct nlmsghdr *h = (void *)answer;
        for (; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
            struct nlmsgerr *e = NLMSG_DATA(h);
            if (h->nlmsg_type == NLMSG_ERROR) {
                left--;
                if (e->error && !failed)
                    failed = -e->error;
            }
        }
    }
    return failed;
}

static int open_netlink(void)
{
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), one = 1;
    setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof one);
    return fd;
}

static void add_link(struct batch *b, const char *name, int index, int inner,
                     const unsigned char *mac)
{
    struct ifinfomsg head = {.ifi_index = index}, peer = {.ifi_index = index + 1};
    struct nlmsghdr *h = begin(b, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
    put(h, IFLA_IFNAME, name, strlen(name) + 1);
    put_number(h, IFLA_MTU, 1500);
    put(h, IFLA_ADDRESS, HOST_MAC, 6);
    put_number(h, IFLA_GROUP, GROUP);
    put_number(h, IFLA_NUM_TX_QUEUES, 1);
    put_number(h, IFLA_NUM_RX_QUEUES, 1);
    struct rtattr *info = put(h, IFLA_LINKINFO, 0, 0);
    put(h, IFLA_INFO_KIND, "veth", 4);
    struct rtattr *data = put(h, IFLA_INFO_DATA, 0, 0);
    struct rtattr *other = put(h, VETH_INFO_PEER, &peer, sizeof peer);
    put(h, IFLA_IFNAME, "eth0", 5);
    put_number(h, IFLA_MTU, 1500);
    put(h, IFLA_ADDRESS, mac, 6);
    put_number(h, IFLA_NUM_TX_QUEUES, 1);
    put_number(h, IFLA_NUM_RX_QUEUES, 1);
    put_number(h, IFLA_NET_NS_FD, inner);
    close_nest(h, other);
    close_nest(h, data);
    close_nest(h, info);
    end(b, h);
}

static void link_up(struct batch *b, int index, int settings)
{
    static const int conf[][2] = {HOST_SETTINGS};
    struct ifinfomsg head = {.ifi_index = index, .ifi_flags = IFF_UP, .ifi_change = IFF_UP};
    struct nlmsghdr *h = begin(b, RTM_SETLINK, 0, &head, sizeof head);
    if (settings) {
        struct rtattr *spec = put(h, IFLA_AF_SPEC, 0, 0), *inet = put(h, AF_INET, 0, 0);
        struct rtattr *all = put(h, IFLA_INET_CONF, 0, 0);
        for (size_t i = 0; i < sizeof conf / sizeof *conf; i++)
            put_number(h, conf[i][0], conf[i][1]);
        close_nest(h, all);
        close_nest(h, inet);
        close_nest(h, spec);
    }
    end(b, h);
}

static void add_address(struct batch *b, int index, uint32_t address, int scope)
{
    struct ifaddrmsg head = {AF_INET, 32, 0, scope, index};
    struct nlmsghdr *h = begin(b, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof head);
    put(h, IFA_LOCAL, &address, 4);
    put(h, IFA_ADDRESS, &address, 4);
    end(b, h);
}

static void add_neighbour(struct batch *b, int index, uint32_t address, const unsigned char *mac)
{
    struct ndmsg head = {.ndm_family = AF_INET, .ndm_ifindex = index, .ndm_state = NUD_PERMANENT};
    struct nlmsghdr *h = begin(b, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, &head, sizeof head);
    put(h, NDA_DST, &address, 4);
    put(h, NDA_LLADDR, mac, 6);
    end(b, h);
}

static void add_route(struct batch *b, int index, uint32_t to, int protocol, uint32_t gateway)
{
    struct rtmsg head = {.rtm_family = AF_INET, .rtm_dst_len = to ? 32 : 0,
                         .rtm_table = RT_TABLE_MAIN, .rtm_protocol = protocol,
                         .rtm_scope = gateway ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
                         .rtm_type = RTN_UNICAST};
    struct nlmsghdr *h = begin(b, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &head, sizeof head);
    if (to)
        put(h, RTA_DST, &to, 4);
    if (gateway)
        put(h, RTA_GATEWAY, &gateway, 4);
    put_number(h, RTA_OIF, index);
    end(b, h);
}

static int attach(int fd, int home, const char *name, const char *path, uint32_t address,
                  int index, const unsigned char *mac)
{
    uint32_t gateway = htonl(0xa9fe0101); /* 169.254.1.1 */
    struct batch b = {.count = 0};
    char file[128];
    int failed, inner = open(path, O_RDONLY | O_CLOEXEC);
    if (inner < 0)
        return errno;
    add_link(&b, name, index, inner, mac);
    if ((failed = transact(fd, &b)))
        return failed;
    snprintf(file, sizeof file, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name);
    int setting = open(file, O_WRONLY);
    if (setting >= 0 && write(setting, "1", 1) < 1)
        return errno;
    close(setting);
    b.used = b.count = 0;
    link_up(&b, index, 1);
    add_address(&b, index, gateway, RT_SCOPE_LINK);
    add_neighbour(&b, index, address, mac);
    add_route(&b, index, address, PROTOCOL, 0);
    if ((failed = transact(fd, &b)))
        return failed;
    if (setns(inner, CLONE_NEWNET))
        return errno;
    int inside = open_netlink();
    if (setns(home, CLONE_NEWNET))
        _exit(1);
    b.used = b.count = 0;
    link_up(&b, 1, 0);
    link_up(&b, index + 1, 0);
    add_address(&b, index + 1, address, RT_SCOPE_UNIVERSE);
    add_route(&b, index + 1, gateway, RTPROT_BOOT, 0);
    add_route(&b, index + 1, 0, RTPROT_BOOT, gateway);
    add_neighbour(&b, index + 1, gateway, HOST_MAC);
    failed = transact(inside, &b);
    close(inside);
    close(inner);
    return failed;
}

int main(void)
{
    char line[512], name[64], path[256], address[64];
    unsigned m[6];
    int index, fd = open_netlink(), home = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "- %d", &index) == 1) {
            struct batch b = {.count = 0};
            struct ifinfomsg head = {.ifi_index = index};
            end(&b, begin(&b, RTM_DELLINK, 0, &head, sizeof head));
            printf("%d\n", transact(fd, &b));
        } else if (sscanf(line, "%63s %255s %63s %d %x:%x:%x:%x:%x:%x", name, path, address, &index,
                          m, m + 1, m + 2, m + 3, m + 4, m + 5) == 10) {
            unsigned char mac[6] = {m[0], m[1], m[2], m[3], m[4], m[5]};
            struct timespec from, to;
            clock_gettime(CLOCK_MONOTONIC, &from);
            int failed = attach(fd, home, name, path, inet_addr(address), index, mac);
            clock_gettime(CLOCK_MONOTONIC, &to);
            if (failed)
                printf("error %d\n", failed);
            else
                printf("%lld\n", (to.tv_sec - from.tv_sec) * 1000000000LL + to.tv_nsec
                                     - from.tv_nsec);
        } else {
            printf("error %d\n", EINVAL);
        }
        fflush(stdout);
    }
    return 0;
}
