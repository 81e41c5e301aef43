// The pool under nested calls, callers on several threads, and fork.
#include "parallel.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "testing.h"

namespace {

void count_chunks(int32_t threads) {
  std::vector<std::atomic<int>> calls(37);
  kangaroo::parallel_for(37, 1, threads, [&](int64_t begin, int64_t) { ++calls[begin]; });
  for (const auto& count : calls) EXPECT(count == 1);
}

void nest() {
  std::atomic<int> total = 0;
  kangaroo::parallel_for(8, 1, 3, [&](int64_t, int64_t) {
    kangaroo::parallel_for(
        10, 3, 3, [&](int64_t begin, int64_t end) { total += static_cast<int>(end - begin); });
  });
  EXPECT(total == 80);
}

// Whatever thread it is on, and the pool serves again.
void throw_in_chunks() {
  for (int64_t bad = 0; bad < 37; ++bad) {
    std::atomic<int> total = 0;
    bool caught = false;
    try {
      kangaroo::parallel_for(37, 1, 3, [&](int64_t begin, int64_t) {
        ++total;
        if (begin >= bad) throw std::bad_alloc();
      });
    } catch (const std::bad_alloc&) {
      caught = true;
    }
    EXPECT(caught && total == 37);
    count_chunks(3);
  }
}

void call_from_many_threads() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([] {
      for (int repeat = 0; repeat < 500; ++repeat) count_chunks(4);
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void call_in_a_child() {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);  // a deadlock ends the child
    count_chunks(3);
    nest();
    _exit(testing::result());
  }
  int status = -1;
  waitpid(child, &status, 0);
  EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

}  // namespace

int main() {
  for (const int32_t threads : {1, 2, 8, 3}) count_chunks(threads);
  nest();
  throw_in_chunks();
  call_from_many_threads();
  call_in_a_child();
  std::this_thread::sleep_for(std::chrono::milliseconds(5));  // helpers fall asleep
  count_chunks(4);
  return testing::result();
}
