/*
 * A small kqueue(2) on epoll and inotify, to test src/sys/kqueue.rs and src/sys/vnode.rs on Linux.
 *
 * It has what they use and no more: EVFILT_READ, EVFILT_WRITE and EVFILT_VNODE; EV_ADD, EV_DELETE
 * and EV_CLEAR. What it does otherwise than a kernel that has kqueue:
 *  - a vnode's note does not leave when its descriptor is closed (that of a socket does);
 *  - a queue is inherited over a fork, which a child must not make use of;
 *  - of a connection that failed it tells that it did, not how: asking would take the error away;
 *  - a directory that is removed while it is open is not told of: the one above it is.
 * A queue belongs to one thread.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { READ = -1, WRITE = -2, VNODE = -4 };
enum { ADD = 0x1, DELETE = 0x2, CLEAR = 0x20, END = 0x8000 };
enum { NOTE_DELETE = 0x1, NOTE_WRITE = 0x2, NOTE_EXTEND = 0x4, NOTE_ATTRIB = 0x8, NOTE_RENAME = 0x20 };

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
};

/* What is asked for of a vnode, and what has happened and was not told yet. */
struct vnode {
    struct kevent asked;
    int watch;
    uint32_t happened;
};

/*
 * A queue is an epoll instance with every descriptor that is asked for to be read. One more instance has
 * those that are asked for to be written to, so that the two filters do not wake each other. It is made
 * with the queue: a kernel's queue needs no further descriptor for its first socket, so a test that counts
 * descriptors must not meet one. An inotify instance is made when it is needed.
 */
struct queue {
    int fd, writers, inotify;
    void **tokens[2];
    size_t room[2];
    struct vnode *vnodes;
    size_t count;
};

#define WRITERS (1ULL << 32)
#define INOTIFY (1ULL << 33)
#define QUEUES 4096

static struct queue *queues[QUEUES];

/* Takes an instance of its own into the queue. */
static int join(struct queue *queue, int fd, uint64_t mark) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = mark};
    if (fd >= 0 && epoll_ctl(queue->fd, EPOLL_CTL_ADD, fd, &event) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

/* A descriptor with the number of an older queue is a new one: the older was closed. */
int kqueue(void) {
    int fd = epoll_create1(0);
    if (fd < 0)
        return -1;
    if (fd >= QUEUES) {
        close(fd);
        errno = EMFILE;
        return -1;
    }
    struct queue *old = queues[fd], *queue = calloc(1, sizeof *queue);
    if (old != NULL) {
        if (old->writers >= 0)
            close(old->writers);
        if (old->inotify >= 0)
            close(old->inotify);
        free(old->tokens[0]);
        free(old->tokens[1]);
        free(old->vnodes);
        free(old);
    }
    queues[fd] = queue;
    if (queue == NULL) {
        close(fd);
        errno = ENOMEM;
        return -1;
    }
    queue->fd = fd;
    queue->inotify = -1;
    queue->writers = join(queue, epoll_create1(EPOLL_CLOEXEC), WRITERS);
    if (queue->writers < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int change_socket(struct queue *queue, const struct kevent *change) {
    int write = change->filter == WRITE, fd = (int)change->ident;
    int instance = write ? queue->writers : queue->fd;
    if (change->flags & DELETE)
        return epoll_ctl(instance, EPOLL_CTL_DEL, fd, NULL);
    if ((size_t)fd >= queue->room[write]) {
        size_t room = (size_t)fd * 2 + 16;
        void **tokens = realloc(queue->tokens[write], room * sizeof *tokens);
        if (tokens == NULL)
            return -1;
        queue->tokens[write] = tokens;
        queue->room[write] = room;
    }
    struct epoll_event event = {
        .events = (write ? EPOLLOUT : EPOLLIN | EPOLLRDHUP) | (change->flags & CLEAR ? (uint32_t)EPOLLET : 0),
        .data.u64 = (uint64_t)fd,
    };
    if (epoll_ctl(instance, EPOLL_CTL_ADD, fd, &event) != 0
        && (errno != EEXIST || epoll_ctl(instance, EPOLL_CTL_MOD, fd, &event) != 0))
        return -1;
    queue->tokens[write][fd] = change->udata;
    return 0;
}

static int change_vnode(struct queue *queue, const struct kevent *change) {
    size_t at = 0;
    while (at < queue->count && queue->vnodes[at].asked.ident != change->ident)
        at++;
    if (change->flags & DELETE) {
        if (at == queue->count) {
            errno = ENOENT;
            return -1;
        }
        inotify_rm_watch(queue->inotify, queue->vnodes[at].watch);
        queue->vnodes[at] = queue->vnodes[--queue->count];
        return 0;
    }
    if (!(change->flags & CLEAR)) {
        errno = EINVAL;
        return -1;
    }
    if (queue->inotify < 0)
        queue->inotify = join(queue, inotify_init1(IN_NONBLOCK | IN_CLOEXEC), INOTIFY);
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", (int)change->ident);
    struct stat status;
    /* A kernel's tells of no writes to the files in a directory. */
    int is_directory = fstat((int)change->ident, &status) == 0 && S_ISDIR(status.st_mode);
    int watch = inotify_add_watch(queue->inotify, path,
        IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE | IN_ATTRIB | IN_MOVE_SELF |
            (is_directory ? 0 : IN_MODIFY));
    if (watch < 0)
        return -1;
    if (at == queue->count) {
        struct vnode *vnodes = realloc(queue->vnodes, (at + 1) * sizeof *vnodes);
        if (vnodes == NULL)
            return -1;
        queue->vnodes = vnodes;
        queue->vnodes[at].happened = 0;
        queue->count++;
    }
    queue->vnodes[at].asked = *change;
    queue->vnodes[at].watch = watch;
    return 0;
}

/* Notes what an event of inotify means for the vnode of that watch, as far as it is asked for. */
static void note(struct queue *queue, const struct inotify_event *event) {
    for (size_t at = 0; at < queue->count; at++) {
        struct vnode *vnode = &queue->vnodes[at];
        struct stat status;
        uint32_t happened = 0;
        if (vnode->watch != event->wd)
            continue;
        int own = event->len == 0;
        if (event->mask & (IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE))
            happened |= NOTE_WRITE;
        if (event->mask & IN_MODIFY && own)
            happened |= NOTE_WRITE | NOTE_EXTEND;
        if (event->mask & IN_ATTRIB && own)
            happened |= NOTE_ATTRIB;
        if (event->mask & IN_MOVE_SELF)
            happened |= NOTE_RENAME;
        if (fstat((int)vnode->asked.ident, &status) == 0 && status.st_nlink == 0)
            happened |= NOTE_DELETE;
        vnode->happened |= happened & vnode->asked.fflags;
    }
}

static int take_vnodes(struct queue *queue, struct kevent *events, int room) {
    _Alignas(struct inotify_event) char bytes[4096];
    ssize_t n;
    while ((n = read(queue->inotify, bytes, sizeof bytes)) > 0) {
        for (ssize_t at = 0; at < n;) {
            const struct inotify_event *event = (const void *)(bytes + at);
            note(queue, event);
            at += (ssize_t)(sizeof *event + event->len);
        }
    }
    int taken = 0;
    for (size_t at = 0; at < queue->count && taken < room; at++) {
        struct vnode *vnode = &queue->vnodes[at];
        if (vnode->happened == 0)
            continue;
        events[taken] = vnode->asked;
        events[taken++].fflags = vnode->happened;
        vnode->happened = 0;
    }
    return taken;
}

/* Puts down what was found of sockets. */
static int take_sockets(struct queue *queue, int write, const struct epoll_event *found, int n, struct kevent *events) {
    int taken = 0;
    for (int at = 0; at < n; at++) {
        uint32_t is = found[at].events;
        int ended = is & (write ? EPOLLHUP | EPOLLERR : EPOLLRDHUP | EPOLLHUP | EPOLLERR);
        if (found[at].data.u64 == WRITERS || found[at].data.u64 == INOTIFY)
            continue;
        events[taken++] = (struct kevent){
            .ident = found[at].data.u64,
            .filter = write ? WRITE : READ,
            .flags = CLEAR | (ended ? END : 0),
            .fflags = is & EPOLLERR ? ECONNRESET : 0,
            .data = 1,
            .udata = queue->tokens[write][found[at].data.u64],
        };
    }
    return taken;
}

/* Takes what there is. That reading is always told before writing, which a kernel does not do, is to
 * find out who relies on the order. What there is no room for is found the next time. */
static int take(struct queue *queue, int timeout, struct kevent *events, int room) {
    struct epoll_event found[256];
    int n = epoll_wait(queue->fd, found, room < 256 ? room : 256, timeout);
    if (n < 0)
        return -1;
    int taken = take_sockets(queue, 0, found, n, events);
    if (queue->inotify >= 0)
        taken += take_vnodes(queue, events + taken, room - taken);
    if (taken < room) {
        n = epoll_wait(queue->writers, found, room - taken < 256 ? room - taken : 256, 0);
        if (n > 0)
            taken += take_sockets(queue, 1, found, n, events + taken);
    }
    return taken;
}

int kevent(int fd, const struct kevent *changes, int nchanges, struct kevent *events, int nevents,
           const struct timespec *timeout) {
    if (fd < 0 || fd >= QUEUES || queues[fd] == NULL) {
        errno = EBADF;
        return -1;
    }
    struct queue *queue = queues[fd];
    for (int at = 0; at < nchanges; at++) {
        int failed = changes[at].filter == VNODE ? change_vnode(queue, &changes[at]) : change_socket(queue, &changes[at]);
        if (failed)
            return -1;
    }
    if (nevents == 0)
        return 0;
    /* Vnodes for which there was no room the last time. */
    int left = queue->inotify < 0 ? 0 : take_vnodes(queue, events, nevents);
    if (left > 0)
        return left;
    int timeout_ms = timeout == NULL ? -1 : (int)(timeout->tv_sec * 1000 + timeout->tv_nsec / 1000000);
    return take(queue, timeout_ms, events, nevents);
}
