"""Where the siblings meet: links, packet core, receiver and HTTP under one nursery."""
