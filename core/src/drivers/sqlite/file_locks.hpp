#pragma once
// The locks of SQLite's files, as locks of an open file instead of the process.
//
// A process with an engine in it mostly has a second copy of SQLite: that of Python, of Node, or of the
// program itself. Between two copies the locks that SQLite uses are worth nothing: those of one process do
// not keep its copies apart, and whoever closes a file drops the locks that anybody in the process has on it.
// So our copy locks an open file of its own, which is a lock like any other to everybody else; and what it
// closes stays open as long as somebody may have a lock on that file.

namespace towline::drivers::sqlite {

/// Before the first connection is opened; any thread, any number of times.
void own_file_locks();

/// ::open() and ::close() for a regular file that may be a database which others in this process have open.
[[nodiscard]] int open_shared_file(const char* path, int flags, int mode);
int close_shared_file(int file);

}  // namespace towline::drivers::sqlite
