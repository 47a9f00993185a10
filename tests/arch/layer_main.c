/*
 * The main of the programs that prove the table of folders in docs/ARCHITECTURE.md: each is linked
 * of all of one folder's library and of the libraries that its row names. They are never run.
 */
int main(void)
{
    return 0;
}
