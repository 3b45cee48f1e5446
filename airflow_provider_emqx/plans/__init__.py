"""Plans: files with every change that a task is going to make, which a person approves and another task carries out."""
