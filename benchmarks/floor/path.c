/*
 * One end of a path through the network: `path NETNS-PATH CPU OTHER-CPU` enters the namespace, stays
 * on one processor, takes UDP packets on the other, and answers each line with one.
 *
 * "listen ADDRESS"     answers TCP bytes with themselves and counts UDP packets, on PORT; "ok"
 * "rr ADDRESS N"       the nanoseconds of N round trips of one byte on one TCP connection, median
 * "pkt ADDRESS N"      the nanoseconds that sending a UDP packet of 64 bytes (with headers) takes, of
 *                      N: of a path through virtual links that is all of its way to the socket
 * "count"              the UDP packets that came since it was last asked
 *
 * What fails answers "error ERRNO".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { PORT = 9000, PAYLOAD = 64 - 20 - 8, MOST = 1 << 20 };

static long came;
static int other_cpu;
static long times[MOST];

static long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000L + t.tv_nsec;
}

static void stay_on(int which)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(which, &cpus);
    sched_setaffinity(0, sizeof cpus, &cpus);
}

static int by_size(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return x < y ? -1 : x > y;
}

static struct sockaddr_in at(const char *address)
{
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons(PORT)};
    inet_pton(AF_INET, address, &found.sin_addr);
    return found;
}

static _Noreturn void *echo(void *given)
{
    int listener = (int)(long)given, one = 1;
    for (;;) {
        int link = accept(listener, NULL, NULL);
        char byte;
        if (link < 0)
            continue;
        setsockopt(link, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        while (read(link, &byte, 1) == 1 && write(link, &byte, 1) == 1)
            ;
        close(link);
    }
}

static _Noreturn void *take(void *given)
{
    int from = (int)(long)given;
    char data[2048];
    stay_on(other_cpu);
    for (;;)
        if (recv(from, data, sizeof data, 0) >= 0)
            __atomic_add_fetch(&came, 1, __ATOMIC_RELAXED);
}

static int start(void *(*body)(void *), int descriptor)
{
    pthread_t thread;
    return pthread_create(&thread, NULL, body, (void *)(long)descriptor);
}

static int listen_on(const char *address)
{
    struct sockaddr_in here = at(address);
    int room = 1 << 26; /* for all packets of one question */
    int tcp = socket(AF_INET, SOCK_STREAM, 0), udp = socket(AF_INET, SOCK_DGRAM, 0);
    setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room);
    if (bind(tcp, (void *)&here, sizeof here) || listen(tcp, 4) ||
        bind(udp, (void *)&here, sizeof here))
        return -1;
    return start(echo, tcp) || start(take, udp);
}

static long round_trips(const char *address, long count)
{
    struct sockaddr_in there = at(address);
    int link = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    char byte = 'x';
    if (connect(link, (void *)&there, sizeof there))
        return -1;
    setsockopt(link, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (long n = 0; n < count; n++) {
        long began = now();
        if (write(link, &byte, 1) != 1 || read(link, &byte, 1) != 1)
            return -1;
        times[n] = now() - began;
    }
    close(link);
    qsort(times, count, sizeof *times, by_size);
    return times[count / 2];
}

static long packets(const char *address, long count)
{
    struct sockaddr_in there = at(address);
    int out = socket(AF_INET, SOCK_DGRAM, 0);
    char data[PAYLOAD] = {0};
    if (connect(out, (void *)&there, sizeof there))
        return -1;
    long began = now();
    for (long n = 0; n < count; n++)
        if (send(out, data, sizeof data, 0) < 0)
            return -1;
    long took = now() - began;
    close(out);
    return took / count;
}

static long asked(const char *line)
{
    char address[64];
    long count;
    if (sscanf(line, "listen %63s", address) == 1)
        return listen_on(address);
    if (sscanf(line, "rr %63s %ld", address, &count) == 2 && count <= MOST)
        return round_trips(address, count);
    if (sscanf(line, "pkt %63s %ld", address, &count) == 2)
        return packets(address, count);
    if (!strncmp(line, "count", 5))
        return __atomic_exchange_n(&came, 0, __ATOMIC_RELAXED);
    errno = EINVAL;
    return -1;
}

int main(int argc, char **argv)
{
    char line[256];
    int space = argc == 4 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    if (space < 0 || setns(space, CLONE_NEWNET)) {
        fprintf(stderr, "path: cannot enter the namespace: %s\n", strerror(errno));
        return 1;
    }
    other_cpu = atoi(argv[3]);
    stay_on(atoi(argv[2]));
    while (fgets(line, sizeof line, stdin)) {
        long found = asked(line);
        if (found < 0)
            printf("error %d\n", errno);
        else
            printf("%ld\n", found);
        fflush(stdout);
    }
    return 0;
}
