// The floor under requests that take turns over many backends: as relay.c, but each request goes to the next backend,
// on the connection to it that was used last. A request and a response are what one receive yields, which holds for
// small ones on loopback; nothing is looked at.
//
//   cc -O2 -o turns turns.c && ./turns PORT BACKEND:PORT [BACKEND:PORT...]
#include "floor.h"

enum { BACKENDS = 1024 };

// By descriptor.
static struct {
  int backend;  // whose connection this is; -1 for a client's
  int client;   // whose response is awaited on it
  int below;    // the idle connection to the same backend that comes after it
} end_of[DESCRIPTORS];

static struct {
  struct sockaddr_in address;
  int idle;  // the connection that was used last; -1 for none
} backends[BACKENDS];

static int poller;

static void watch(int fd, int backend) {
  end_of[fd].backend = backend;
  watch_connection(poller, fd, 0);
}

// An idle connection to a backend, or another one.
static int lend(int backend) {
  int fd = backends[backend].idle;
  if (fd >= 0) {
    backends[backend].idle = end_of[fd].below;
    return fd;
  }
  fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(fd, (struct sockaddr *)&backends[backend].address, sizeof backends[backend].address)) {
    perror("turns");
    exit(1);
  }
  fcntl(fd, F_SETFL, O_NONBLOCK);
  watch(fd, backend);
  return fd;
}

static void pass(int fd, int count) {
  static char piece[PIECE];
  static int turn;
  ssize_t got = recv(fd, piece, PIECE, 0);
  if (got < 0) return;
  if (got == 0) {
    close(fd);
    return;
  }
  int to, backend = end_of[fd].backend;
  if (backend < 0) {
    to = lend(turn++ % count);
    end_of[to].client = fd;
  } else {
    to = end_of[fd].client;
    end_of[fd].below = backends[backend].idle;
    backends[backend].idle = fd;
  }
  send(to, piece, got, MSG_NOSIGNAL);
}

int main(int count, char **arguments) {
  if (count < 3 || count - 2 > BACKENDS) return fprintf(stderr, "usage: turns PORT BACKEND:PORT...\n"), 2;
  for (int i = 2; i < count; i++) {
    char *port = strchr(arguments[i], ':');
    if (!port) return fprintf(stderr, "turns: '%s' has no port\n", arguments[i]), 2;
    *port++ = 0;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    inet_pton(AF_INET, arguments[i], &address.sin_addr);
    backends[i - 2].address = address;
    backends[i - 2].idle = -1;
  }
  poller = epoll_create1(0);
  int listener = listen_on(arguments[1], poller);
  struct epoll_event events[EVENTS];
  for (;;) {
    int ready = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd != listener) {
        pass(fd, count - 2);
        continue;
      }
      for (int client; (client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) watch(client, -1);
    }
  }
}
