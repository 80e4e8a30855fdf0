cleaned
