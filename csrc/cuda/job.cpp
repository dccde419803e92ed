#include "cuda/job.h"

#include <chrono>
#include <thread>
#include <utility>

#include "sha256d/row.h"

namespace ww::cuda {

namespace {

std::unique_ptr<Workspace> workspace(Gpu& gpu) {
  const Current current(gpu.context());
  return gpu.take_workspace();
}

}  // namespace

GpuJob::GpuJob(std::shared_ptr<Gpu> gpu, const Work& work, const Rect& share, u32 sms)
    : gpu_(std::move(gpu)), space_(workspace(*gpu_)), work_(work), share_(share), sms_(sms),
      todo_(gpu_->shape(), work) {
  todo_.push(share_);
}

GpuJob::~GpuJob() {
  if (!failed_) gpu_->give_back(std::move(space_));
}

void GpuJob::front_begin(Stream stream) {
  const Current current(gpu_->context());
  space_->fence().front_begin(stream);
}

void GpuJob::front_end(Stream stream) {
  const Current current(gpu_->context());
  space_->fence().front_end(stream);
}

void GpuJob::run(const YieldFlag& yield, const std::function<bool()>& poll) {
  const Controls controls{&yield, kUnlimited, nullptr, poll};
  Halt halt(controls);
  std::unique_lock running(running_, std::try_to_lock);
  for (; !running && !halt(); running.try_lock()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!running || halt()) return;
  const Current current(gpu_->context());
  try {
    while (!halt()) go_on([&] { return halt(); });
  } catch (...) {
    let_go();
    failed_ = true;
    throw;
  }
}

// Until the sweep is done, or is to end.
void GpuJob::go_on(const std::function<bool()>& halted) {
  if (!sweep_) {
    if (todo_.empty()) {
      set_header_time(work_, header_time(work_) + 1);
      todo_.push(share_);
    }
    sweep_.emplace(*gpu_, *space_, work_, todo_.take(), sms_);
    untested_ = pairs_of({sweep_->rect()});
  }
  sweep_->run(false, halted, [this](const std::vector<u64>& candidates) {
    take(candidates);
    return false;
  });
  if (sweep_->overflowed()) todo_.take_smaller();
  if (sweep_->must_begin_anew() || sweep_->left().empty()) let_go();
}

void GpuJob::take(const std::vector<u64>& candidates) {
  const auto confirmed = confirm(work_, sweep_->rect(), candidates);
  const u64 now = pairs_of(sweep_->left());
  units_.fetch_add(untested_ - now, std::memory_order_relaxed);
  untested_ = now;
  std::lock_guard lock(mutex_);
  for (const Placed& placed : confirmed) hits_.push_back({header_time(work_), placed.hit});
  while (hits_.size() > kHitsKept) hits_.pop_front(), ++hits_lost_;
}

// Ends the sweep; what is left of it comes next.
void GpuJob::let_go() {
  if (!sweep_) return;
  const auto left = sweep_->left();
  for (auto r = left.rbegin(); r != left.rend(); ++r) todo_.push(*r);
  sweep_.reset();
}

std::vector<Piece> GpuJob::left() {
  std::lock_guard running(running_);
  std::vector<Piece> out;
  if (sweep_)
    for (const Rect& r : sweep_->left()) out.push_back({header_time(work_), r});
  for (auto r = todo_.rects().rbegin(); r != todo_.rects().rend(); ++r) out.push_back({header_time(work_), *r});
  return out;
}

std::vector<JobHit> GpuJob::take_hits() {
  std::lock_guard lock(mutex_);
  const auto taken = std::exchange(hits_, {});
  return {taken.begin(), taken.end()};
}

uint64_t GpuJob::hits_lost() const {
  std::lock_guard lock(mutex_);
  return hits_lost_;
}

}  // namespace ww::cuda
