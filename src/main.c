/* main - hands over to the verb. */
int
main(void)
{
    return 0;
}
