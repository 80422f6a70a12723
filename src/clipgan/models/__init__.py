"""Networks: generators, discriminators, pseudo text, frozen image networks."""
