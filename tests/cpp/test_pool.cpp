// The pool: every index exactly once, phases in order, teams beside and inside one another, fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "check.h"
#include "runtime/pool.h"

using ww::Team;

static void every_index_once(int threads, int phases) {
  Team team(threads);
  CHECK(team.size() >= 1 && team.size() <= threads);
  std::vector<int> count(1000);  // plain ints: a race or a repeat shows
  for (int p = 0; p < phases; ++p) {
    const int n = 1 + (p * 37) % 1000;
    team.run(n, [&](int i) { count[static_cast<size_t>(i)] += 1; });
    for (int i = 0; i < 1000; ++i) CHECK(count[static_cast<size_t>(i)] == (i < n ? 1 : 0));
    for (int& c : count) c = 0;
  }
}

int main() {
  CHECK(ww::default_threads() >= 1);
  for (int threads : {1, 2, 3, 8}) every_index_once(threads, 500);

  // Teams side by side, from several threads: none waits for another's helpers.
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) callers.emplace_back([] {
    for (int i = 0; i < 50; ++i) every_index_once(3, 10);
  });
  for (auto& t : callers) t.join();

  // Inside a team's lifetime another Team is that team.
  {
    Team outer(2);
    Team inner(8);
    CHECK(inner.size() == outer.size());
    std::atomic<int> sum{0};
    inner.run(100, [&](int i) { sum += i; });
    CHECK(sum == 4950);
  }

  // Helpers that went to sleep between phases are woken by the next.
  {
    Team team(4);
    for (int i = 0; i < 20; ++i) {
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      std::atomic<int> sum{0};
      team.run(8, [&](int j) { sum += j; });
      CHECK(sum == 28);
    }
  }

  // What an item throws, run() throws once all items are done; the team works on.
  {
    Team team(4);
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> done{0};
      bool thrown = false;
      try {
        team.run(20, [&](int i) {
          ++done;
          if (i % 7 == 3) throw i;
        });
      } catch (int i) {
        thrown = i % 7 == 3;
      }
      CHECK(thrown && (done == 20 || team.size() == 1));
    }
  }

  // A phase that starts within another, on the caller's thread.
  {
    Team team(4);
    std::atomic<int> sum{0};
    const auto caller = std::this_thread::get_id();
    for (int round = 0; round < 50; ++round)
      team.run(8, [&](int) {
        if (std::this_thread::get_id() == caller) Team(2).run(10, [&](int j) { sum += j; });
      });
    CHECK(sum % 45 == 0);
  }

  if (!can_fork()) return 0;
  const pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    every_index_once(3, 50);
    _exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  return 0;
}
