// The floor under any proxy in user space: one thread that passes bytes between a client's
// connection and one of its own to a backend, and looks at none of them. Edge-triggered,
// registered once, no system call but a receive and a send for each piece that passes.
//
//   cc -O2 -o relay relay.c && ./relay PORT BACKEND_PORT [BACKEND_PORT...]
#include "floor.h"

// By descriptor.
static struct {
  int peer;          // its other connection; -1 where it has none
  char *rest;        // what was received from it and its peer did not take
  size_t from, to;   // where in it that lies
} end_of[DESCRIPTORS];

static char piece[PIECE];

static void end(int fd) {
  for (int both[] = {fd, end_of[fd].peer}, i = 0; i < 2; i++) {
    free(end_of[both[i]].rest);
    end_of[both[i]].rest = NULL;
    end_of[both[i]].peer = -1;
    close(both[i]);
  }
}

// Passes on what `fd` has, until it has no more or its peer takes no more.
static void pass(int fd) {
  int peer = end_of[fd].peer;
  if (peer < 0) return;
  for (;;) {
    char *rest = end_of[fd].rest;
    if (!rest) {
      ssize_t got = recv(fd, piece, PIECE, 0);
      if (got < 0 && errno == EAGAIN) return;
      if (got <= 0) return end(fd);
      ssize_t sent = send(peer, piece, got, MSG_NOSIGNAL);
      if (sent < 0 && errno != EAGAIN) return end(fd);
      if (sent == got && got < PIECE) return;  // a short read: there was no more
      if (sent == got) continue;
      sent = sent < 0 ? 0 : sent;
      end_of[fd].rest = memcpy(malloc(got - sent), piece + sent, got - sent);
      end_of[fd].from = 0;
      end_of[fd].to = got - sent;
    } else {
      ssize_t sent = send(peer, rest + end_of[fd].from, end_of[fd].to - end_of[fd].from, MSG_NOSIGNAL);
      if (sent < 0 && errno == EAGAIN) return;
      if (sent < 0) return end(fd);
      if ((end_of[fd].from += sent) < end_of[fd].to) continue;
      free(rest);
      end_of[fd].rest = NULL;
    }
  }
}

static void watch(int poller, int fd, int peer) {
  end_of[fd].peer = peer;
  watch_connection(poller, fd, EPOLLOUT);
}

int main(int count, char **arguments) {
  if (count < 3) return fprintf(stderr, "usage: relay PORT BACKEND_PORT...\n"), 2;
  for (int fd = 0; fd < DESCRIPTORS; fd++) end_of[fd].peer = -1;
  int poller = epoll_create1(0), listener = listen_on(arguments[1], poller), turn = 0;
  struct epoll_event events[EVENTS];
  for (;;) {
    int ready = epoll_wait(poller, events, EVENTS, -1);
    for (int i = 0; i < ready; i++) {
      int fd = events[i].data.fd;
      if (fd != listener) {
        if (events[i].events & EPOLLOUT && end_of[fd].peer >= 0) pass(end_of[fd].peer);
        if (events[i].events & ~EPOLLOUT) pass(fd);
        continue;
      }
      for (int client; (client = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0;) {
        int backend = socket(AF_INET, SOCK_STREAM, 0);
        struct sockaddr_in to = loopback(arguments[2 + turn++ % (count - 2)]);
        if (connect(backend, (struct sockaddr *)&to, sizeof to)) {
          close(client);
          close(backend);
          continue;
        }
        fcntl(backend, F_SETFL, O_NONBLOCK);
        watch(poller, client, backend);
        watch(poller, backend, client);
      }
    }
  }
}
