/* For LD_PRELOAD: syncs that do nothing. A server that runs so loses mail when the power fails, and the harness must see it. */
int fsync(int fd);
int fdatasync(int fd);

int
fsync(int fd)
{
    (void)fd;
    return 0;
}

int
fdatasync(int fd)
{
    (void)fd;
    return 0;
}
