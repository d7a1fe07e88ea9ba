// Not there yet: until then an ordered group is read like an unordered one.

#include "drivers/sqlite/ownership.hpp"

namespace towline::drivers::sqlite {

void make_partitioned(Tx&, GroupTopic&) {}
void deal_partitions(Tx&) {}
void sync_partition_cursors(Tx&, Session&) {}

}  // namespace towline::drivers::sqlite
