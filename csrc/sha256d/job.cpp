#include "sha256d/job.h"

#include <utility>

#include "sha256d/row.h"

namespace ww {

Job::Job(const Work& work, const Kernel& kernel) : work_(work), kernel_(kernel), time_(header_time(work)) {}

Piece Job::fresh() const {
  return {time_, {0, kNonces, version_, kernel_.side_by_side(version_count(work_.version_mask) - version_)}};
}

Piece Job::take() {
  std::lock_guard lock(mutex_);
  if (!given_back_.empty()) {
    const Piece piece = given_back_.back();
    given_back_.pop_back();
    return piece;
  }
  const Piece piece = fresh();
  version_ += piece.rect.versions;
  if (version_ == version_count(work_.version_mask)) version_ = 0, ++time_;
  return piece;
}

void Job::give_back(const Piece& piece) {
  std::lock_guard lock(mutex_);
  if (piece.rect.count && piece.rect.versions) given_back_.push_back(piece);
}

std::vector<Piece> Job::given_back() const {
  std::lock_guard lock(mutex_);
  return given_back_;
}

Piece Job::next_fresh() const {
  std::lock_guard lock(mutex_);
  return fresh();
}

std::vector<JobHit> Job::take_hits() {
  std::lock_guard lock(mutex_);
  const auto taken = std::exchange(hits_, {});
  return {taken.begin(), taken.end()};
}

uint64_t Job::hits_lost() const {
  std::lock_guard lock(mutex_);
  return hits_lost_;
}

void Job::run(Team& team, const YieldFlag& yield, const std::function<bool()>& poll) {
  bool interrupted = false;
  std::function<bool()> watch;
  if (poll) watch = [&] { return interrupted = poll(); };
  const Controls controls{&yield, kHitsKept, &units_, watch};
  bool ended = yield.load(std::memory_order_acquire) != 0;
  while (!ended) {
    const Piece piece = take();
    Work work = work_;
    set_header_time(work, piece.time);
    Found found;
    try {
      found = scan(team, work, piece.rect, kernel_, controls);
    } catch (...) {
      give_back(piece);  // whole: better tested twice than never
      throw;
    }
    const bool stopped = found.halted && found.hits.size() < kHitsKept;  // and not only full of hits
    ended = interrupted || stopped || yield.load(std::memory_order_acquire) != 0;
    // From the back, so that the next call begins with the first (and smallest) of them.
    for (auto r = found.remaining.rbegin(); r != found.remaining.rend(); ++r) give_back({piece.time, *r});
    std::lock_guard lock(mutex_);
    for (const Hit& hit : found.hits) hits_.push_back({piece.time, hit});
    while (hits_.size() > kHitsKept) hits_.pop_front(), ++hits_lost_;
  }
}

}  // namespace ww
