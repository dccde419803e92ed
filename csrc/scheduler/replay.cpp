#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <utility>

#include "scheduler/log.h"

namespace ww {
namespace {

constexpr int64_t kMostNs = int64_t{1} << 62;

struct Damaged {};  // the records make no sense

// Never reads past its end.
struct Reader {
  const uint8_t* at;
  const uint8_t* end;

  uint8_t byte() {
    if (at == end) throw Damaged{};
    return *at++;
  }
  uint64_t varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      const uint64_t b = byte();
      value |= (b & 0x7F) << shift;
      if (b < 0x80) return value;
    }
    throw Damaged{};
  }
  int64_t zigzag() {
    const uint64_t v = varint();
    return static_cast<int64_t>(v >> 1 ^ (~(v & 1) + 1));
  }
  int64_t time_from(int64_t base_ns) {  // both from 0 to 2^62, so that no sum of times overflows
    const int64_t span_ns = zigzag();
    if (span_ns < -base_ns || span_ns > kMostNs - base_ns) throw Damaged{};
    return base_ns + span_ns;
  }
  int32_t int32() {
    const int64_t v = zigzag();
    if (v != static_cast<int32_t>(v)) throw Damaged{};
    return static_cast<int32_t>(v);
  }
  int32_t count() {
    const uint64_t v = varint();
    if (v > INT32_MAX) throw Damaged{};
    return static_cast<int32_t>(v);
  }
  uint64_t fixed(int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; ++i) value |= uint64_t{byte()} << 8 * i;
    return value;
  }
};

// The payload of the next block, of which `from` then holds the rest. False: there is no whole one.
bool next_block(Reader& from, Reader& payload) {
  Reader r = from;
  try {
    const uint64_t n = r.varint();
    if (n == 0 || n > static_cast<uint64_t>(r.end - r.at)) return false;
    payload = {r.at, r.at + n};
    r.at += n;
    if (r.fixed(4) != crc32(payload.at, n)) return false;
  } catch (const Damaged&) {
    return false;
  }
  from = r;
  return true;
}

constexpr int32_t kPlainToken = 0, kStopToken = 1;

class Replayer {
 public:
  // False: no more, the last record was the end or the first decision that differs.
  bool records(Reader& r) {
    while (r.at != r.end)
      if (!record(r)) return false;
    return true;
  }

  LogReplay result() {
    if (scheduler_) {
      out_.counters = scheduler_->counters();
      out_.decision_hash = scheduler_->decision_hash();
    }
    return std::move(out_);
  }
  bool begun() const { return scheduler_ != nullptr; }

 private:
  bool record(Reader& r) {
    const auto op = static_cast<LogOp>(r.byte());
    if ((op == LogOp::config) == begun()) throw Damaged{};
    if (op == LogOp::config) return make(r), true;
    if (op == LogOp::end) return agree(r.fixed(8) == scheduler_->decision_hash()), false;
    if (op == LogOp::drain) return scheduler_->set_draining(r.byte() != 0), true;
    if (op == LogOp::share) return offer(r), true;
    if (op > LogOp::share) throw Damaged{};
    now_ns_ = r.time_from(now_ns_);
    if (out_.begin_ns == 0) out_.begin_ns = now_ns_;
    out_.end_ns = now_ns_;
    const bool same = timed(op, r);
    take_events();
    return agree(same);
  }

  bool timed(LogOp op, Reader& r) {
    if (op == LogOp::submit) submit(r);
    else if (op == LogOp::cancel) return scheduler_->cancel(now_ns_, r.varint());
    else if (op == LogOp::expire) scheduler_->expire(now_ns_);
    else if (op == LogOp::schedule) return schedule(r);
    else end_step(op, r);
    return true;
  }

  void make(Reader& r) {
    int32_t f[10];
    for (int32_t& field : f) field = r.count();
    if (f[9] > 1) throw Damaged{};
    const SchedulerConfig c{f[0], f[1], f[2], f[3], f[4], f[5], f[6], f[7], f[8], f[9] == 1};
    scheduler_ = std::make_unique<Scheduler>(c);
    scheduler_->plan_only();
    next_token_.resize(static_cast<size_t>(c.max_num_seqs));
  }

  void submit(Reader& r) {
    const int32_t n = r.int32();
    RequestParams p{r.int32(), -1, {0, 1, 1, 0, 0}};
    const uint8_t bits = r.byte();
    if (bits & 1) p.stop_token_id = kStopToken;
    if (bits & 2) p.priority = r.int32();
    if (bits & 4) p.tenant = r.varint();
    if (bits & 8) p.deadline_ns = r.time_from(now_ns_);
    if (bits & 16) p.timeout_ns = r.time_from(now_ns_);
    const int64_t id = scheduler_->submit(now_ns_, nullptr, n, p);
    if (id > 0) request_of_.push_back(out_.served.requests.size());
    out_.served.arrived(now_ns_, n, 0, id);
  }

  void offer(Reader& r) {
    const uint64_t id = r.varint(), donor = r.varint();
    scheduler_->offer({id, donor, r.count()});
  }

  bool schedule(Reader& r) {
    if (scheduler_->in_flight()) throw Damaged{};
    const uint64_t hash = r.fixed(2);
    batch_ = scheduler_->schedule(now_ns_);
    if (scheduler_->take_back_offers()) throw Damaged{};
    scheduled_ns_ = now_ns_;
    return batch_ && hash == (scheduler_->decision_hash() & 0xFFFF);
  }

  void end_step(LogOp op, Reader& r) {
    if (!scheduler_->in_flight()) throw Damaged{};
    out_.busy_ns += now_ns_ - scheduled_ns_;
    if (op == LogOp::fail) return scheduler_->fail(now_ns_, "");
    std::fill_n(next_token_.begin(), batch_->n_seqs, kPlainToken);
    for (uint64_t n = r.varint(); n > 0; --n) {
      const uint64_t e = r.varint();
      if (e >> 1 >= static_cast<uint64_t>(batch_->n_seqs)) throw Damaged{};
      next_token_[e >> 1] = e & 1 ? kStopToken : -1;
    }
    scheduler_->complete(now_ns_, next_token_.data());
  }

  void take_events() {
    if (scheduler_->events().empty()) return;
    scheduler_->take_events(events_);
    const auto request = [&](uint64_t id) -> ServedRequest& { return out_.served.requests[request_of_[id]]; };
    for (const TokenEvent& e : events_.tokens) out_.served.add(request(e.id), e);
    for (const EndEvent& e : events_.ends) out_.served.add(request(e.id), e);
  }

  bool agree(bool same) {
    if (!same) out_.differs_at = std::max<int64_t>(1, scheduler_->counters().steps);
    return same;
  }

  LogReplay out_;
  std::unique_ptr<Scheduler> scheduler_;
  const ww_batch* batch_ = nullptr;
  int64_t now_ns_ = 0, scheduled_ns_ = 0;
  std::vector<int32_t> next_token_;
  std::vector<size_t> request_of_{0};  // by id
  Events events_;
};

}  // namespace

LogReplay replay_log(const uint8_t* data, size_t n, const std::function<bool()>& stop) {
  if (n < sizeof kLogMagic || std::memcmp(data, kLogMagic, sizeof kLogMagic) != 0)
    throw std::invalid_argument("not a log of this version");
  Reader file{data + sizeof kLogMagic, data + n}, block{};
  Replayer replayer;
  const uint8_t* whole = file.at;  // up to here it was good
  bool more = true;
  try {
    while (more && !(stop && stop()) && next_block(file, block)) {
      more = replayer.records(block);
      whole = file.at;
    }
  } catch (const Damaged&) {
  }
  if (!replayer.begun()) throw std::invalid_argument("no config in the log");
  LogReplay result = replayer.result();
  if (more) result.cut_at = whole - data;
  return result;
}

}  // namespace ww
