/* What a C library's start and end cost: linked statically, so that no loader adds to it. */

int main(void) {
    return 0;
}
