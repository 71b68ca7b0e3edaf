package dev.gantry.clients;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.List;
import java.util.Map;

import org.apache.rocketmq.tools.command.MQAdminStartup;

/** What operators see: the commands of {@code mqadmin}, run as they are, and the words in their output. */
final class AdminScenarios {
    private AdminScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("mqadmin_cluster_list_shows_the_broker", AdminScenarios::clusterList);
        all.put("mqadmin_topic_status_shows_the_offsets_of_each_queue", AdminScenarios::topicStatus);
        all.put("mqadmin_topic_route_shows_where_a_topic_lives", AdminScenarios::topicRoute);
        all.put("mqadmin_consumer_progress_shows_what_is_left", AdminScenarios::consumerProgress);
        all.put("mqadmin_broker_status_shows_figures", AdminScenarios::brokerStatus);
        all.put("mqadmin_update_and_delete_topic_take_effect", AdminScenarios::updateAndDeleteTopic);
    }

    /** Runs one command; it reports trouble by printing it, so output with an exception is a failure. */
    private static String mqadmin(World world, String... command) throws Exception {
        String output = outputOf(world, command);
        Check.that(!output.contains("Exception"), String.join(" ", command) + " failed:\n" + output);
        return output;
    }

    /** One command at a time: the output of the process is redirected meanwhile. */
    private static synchronized String outputOf(World world, String... command) throws Exception {
        String[] arguments = new String[command.length + 2];
        System.arraycopy(command, 0, arguments, 0, command.length);
        arguments[command.length] = "-n";
        arguments[command.length + 1] = world.server.nameserver;
        writeLogSettings();
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        PrintStream out = System.out;
        PrintStream err = System.err;
        PrintStream capture = new PrintStream(bytes, true, "UTF-8");
        System.setOut(capture);
        System.setErr(capture);
        try {
            MQAdminStartup.main0(arguments, null);
        } finally {
            System.setOut(out);
            System.setErr(err);
        }
        return new String(bytes.toByteArray(), StandardCharsets.UTF_8);
    }

    /** The commands of 4.9 want a logging configuration below their home folder. */
    private static void writeLogSettings() throws IOException {
        Path folder = Paths.get(System.getProperty("rocketmq.home.dir"), "conf");
        Files.createDirectories(folder);
        Files.write(folder.resolve("logback_tools.xml"), "<configuration/>".getBytes(StandardCharsets.UTF_8));
    }

    private static void shows(String output, String... words) {
        for (String word : words) {
            Check.that(output.contains(word), "no " + word + " in:\n" + output);
        }
    }

    /** Checks that a line begins with {@code cells}, whatever the width of the columns. */
    private static void showsRow(String output, String... cells) {
        String row = String.join(" ", cells);
        for (String line : output.split("\\R")) {
            if (line.trim().replaceAll("\\s+", " ").startsWith(row)) {
                return;
            }
        }
        throw new Check.Broken("no line begins with " + row + " in:\n" + output);
    }

    private static void clusterList(World world) throws Exception {
        String output = mqadmin(world, "clusterList");
        shows(output, world.server.cluster, world.server.broker);
    }

    private static void topicStatus(World world) throws Exception {
        String topic = world.topic(2);
        World.sendRoundQueues(world.producer(), topic, "m", 5);
        String output = mqadmin(world, "topicStatus", "-t", topic);
        String brokerName = World.queues(world.producer(), topic).get(0).getBrokerName();
        showsRow(output, brokerName, "0", "0", "3");
        showsRow(output, brokerName, "1", "0", "2");
    }

    private static void topicRoute(World world) throws Exception {
        String topic = world.topic(2);
        shows(mqadmin(world, "topicRoute", "-t", topic), world.server.broker, world.server.cluster, "queueDatas");
    }

    private static void consumerProgress(World world) throws Exception {
        String topic = world.topic(1);
        String group = world.name("progressing");
        List<String> sent = World.sendRoundQueues(world.producer(), topic, "m", 5);
        Inbox inbox = new Inbox();
        world.consumer(group, topic, inbox);
        inbox.waitForExactly(sent);
        // The client commits every five seconds.
        Check.until("nothing is left", () -> leftOver(world, group, topic) == 0, () -> mqadmin(world, "consumerProgress", "-g", group));
    }

    /**
     * The difference of the topic's only queue, or -1 while the command does not list it: before the first commit
     * there is no progress to show, which the command takes for a failure.
     */
    private static long leftOver(World world, String group, String topic) throws Exception {
        for (String line : outputOf(world, "consumerProgress", "-g", group).split("\\R")) {
            String[] cells = line.trim().split("\\s+");
            if (cells[0].equals(topic)) {
                Check.same("5", cells[3], "broker offset in: " + line);
                return Long.parseLong(cells[3]) - Long.parseLong(cells[4]);
            }
        }
        return -1;
    }

    private static void brokerStatus(World world) throws Exception {
        shows(mqadmin(world, "brokerStatus", "-b", world.server.broker), "brokerVersionDesc", "bootTimestamp", "putTps", "msgPutTotalTodayNow");
    }

    private static void updateAndDeleteTopic(World world) throws Exception {
        String topic = world.name("by-mqadmin");
        String[] update = {"updateTopic", "-b", world.server.broker, "-t", topic, "-r", "3", "-w", "3"};
        shows(mqadmin(world, update), "success");
        Check.same(3, World.queues(world.producer(), topic).size(), "queues of the topic");
        shows(mqadmin(world, "topicList"), topic);
        shows(mqadmin(world, "deleteTopic", "-c", world.server.cluster, "-t", topic), "success");
        Check.that(!mqadmin(world, "topicList").contains(topic), topic + " is still listed after its deletion");
    }
}
