package dev.gantry.clients;

import java.io.PrintStream;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Runs the scenarios against one server, several at once, each in a {@link World} of its own.
 * Prints {@code PASS name} or {@code FAIL name: reason} for each and ends with 0 when all passed.
 * Usage: {@code Main NAMESERVER BROKER CLUSTER [SCENARIO…]}, addresses as {@code host:port}.
 */
public final class Main {
    private static final int SCENARIOS_AT_ONCE = 6;

    private Main() {
    }

    /** A promise of the server, told by a client. */
    interface Scenario {
        void run(World world) throws Exception;
    }

    private static Map<String, Scenario> scenarios() {
        Map<String, Scenario> all = new LinkedHashMap<>();
        SendScenarios.addTo(all);
        DeliveryScenarios.addTo(all);
        PullScenarios.addTo(all);
        OffsetScenarios.addTo(all);
        RetryScenarios.addTo(all);
        OrderScenarios.addTo(all);
        QueryScenarios.addTo(all);
        RefusalScenarios.addTo(all);
        AdminScenarios.addTo(all);
        return all;
    }

    public static void main(String[] args) throws Exception {
        // Kept apart from System.out, which the admin scenarios redirect while a command runs.
        PrintStream out = System.out;
        World.Server server = new World.Server(args[0], args[1], args[2]);
        Map<String, Scenario> chosen = scenarios();
        if (args.length > 3) {
            // `-name` leaves a scenario out, `name` leaves out all that are not named.
            List<String> left = new ArrayList<>();
            List<String> named = new ArrayList<>();
            for (String word : Arrays.asList(args).subList(3, args.length)) {
                boolean leaveOut = word.startsWith("-");
                (leaveOut ? left : named).add(leaveOut ? word.substring(1) : word);
            }
            List<String> known = new ArrayList<>(chosen.keySet());
            if (!known.containsAll(left) || !known.containsAll(named)) {
                out.println("unknown scenario in " + left + named + ", known: " + known);
                System.exit(2);
            }
            chosen.keySet().removeAll(left);
            if (!named.isEmpty()) {
                chosen.keySet().retainAll(named);
            }
        }
        int failed = countFailures(out, chosen, server);
        out.println((chosen.size() - failed) + " passed, " + failed + " failed");
        // Clients leave threads behind that are no daemons.
        System.exit(failed == 0 ? 0 : 1);
    }

    /** They mostly wait for the clients' timers, so several run at once. */
    private static int countFailures(PrintStream out, Map<String, Scenario> chosen, World.Server server) throws Exception {
        ExecutorService workers = Executors.newFixedThreadPool(SCENARIOS_AT_ONCE);
        List<Future<Boolean>> outcomes = new ArrayList<>();
        chosen.forEach((name, scenario) -> outcomes.add(workers.submit(() -> passes(out, name, scenario, server))));
        int failed = 0;
        for (Future<Boolean> passed : outcomes) {
            failed += passed.get() ? 0 : 1;
        }
        workers.shutdown();
        return failed;
    }

    private static boolean passes(PrintStream out, String name, Scenario scenario, World.Server server) {
        long begin = System.nanoTime();
        try (World world = new World(server)) {
            scenario.run(world);
        } catch (Check.Broken e) {
            out.println("FAIL " + name + ": " + e.getMessage());
            return false;
        } catch (Throwable e) {
            out.println("FAIL " + name + ": " + trace(e));
            return false;
        }
        out.printf("PASS %s (%d ms)%n", name, (System.nanoTime() - begin) / 1_000_000);
        return true;
    }

    private static String trace(Throwable e) {
        StringWriter text = new StringWriter();
        e.printStackTrace(new PrintWriter(text));
        return text.toString();
    }
}
