package dev.gantry.clients;

import java.util.Objects;
import java.util.concurrent.Callable;

/**
 * Assertions and bounded waits of the scenarios.
 * A broken promise is a {@link Broken} whose message holds the values; nothing else means "failed".
 * Waits poll a condition and give up at a deadline; no scenario sleeps and hopes.
 */
final class Check {
    /** Longest wait for a condition: two rebalance rounds of the client (20 s each) and some air. */
    static final long WAIT_MS_MAX = 60_000;
    private static final long POLL_MS = 20;

    private Check() {
    }

    /** A promise that does not hold. */
    static final class Broken extends RuntimeException {
        private static final long serialVersionUID = 1L;

        Broken(String message) {
            super(message);
        }
    }

    /** Something that may throw what it likes. */
    interface Action {
        void run() throws Exception;
    }

    static void that(boolean holds, String otherwise) {
        if (!holds) {
            throw new Broken(otherwise);
        }
    }

    static void same(Object expected, Object actual, String what) {
        that(Objects.equals(expected, actual), what + ": expected " + expected + ", got " + actual);
    }

    /** Waits until {@code condition} holds; {@code state} is what a failure shows. */
    static void until(String what, Callable<Boolean> condition, Callable<?> state) throws Exception {
        long end = System.nanoTime() + WAIT_MS_MAX * 1_000_000;
        while (!condition.call()) {
            that(System.nanoTime() < end,
                "still not so after " + WAIT_MS_MAX + " ms: " + what + "; last seen: " + state.call());
            Thread.sleep(POLL_MS);
        }
    }

    /** Runs {@code action}, which must fail with {@code kind}, and returns the failure. */
    static <T extends Exception> T refused(Class<T> kind, String what, Action action) {
        try {
            action.run();
        } catch (Exception e) {
            if (kind.isInstance(e)) {
                return kind.cast(e);
            }
            throw new Broken(what + ": expected " + kind.getSimpleName() + ", got " + e);
        }
        throw new Broken(what + ": was accepted");
    }
}
