package dev.gantry.clients;

import java.util.List;
import java.util.Map;

import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.MessageQueue;

/** What a group is promised about its place in a topic: where it begins and where it goes on. */
final class OffsetScenarios {
    private OffsetScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("new_group_begins_at_the_first_message_of_a_young_topic", OffsetScenarios::newGroup);
        all.put("restarted_consumer_goes_on_where_it_stopped", OffsetScenarios::restart);
        all.put("offset_is_found_by_time", OffsetScenarios::byTime);
    }

    /** With the default, "from the last offset", which means the first while the topic is young. */
    private static void newGroup(World world) throws Exception {
        String topic = world.topic(4);
        List<String> sent = World.sendRoundQueues(world.producer(), topic, "before", 8);
        Inbox inbox = new Inbox();
        world.consumer(world.name("newcomers"), topic, inbox);
        inbox.waitForExactly(sent);
    }

    private static void restart(World world) throws Exception {
        String topic = world.topic(4);
        String group = world.name("restarted");
        DefaultMQProducer producer = world.producer();
        List<String> before = World.sendRoundQueues(producer, topic, "before", 8);
        Inbox first = new Inbox();
        DefaultMQPushConsumer consumer = world.consumer(group, topic, first);
        first.waitForExactly(before);
        // The client writes its offsets back when it shuts down, and leaves out those of messages whose listener has not
        // returned by then.
        consumer.setAwaitTerminationMillisWhenShutdown(Check.WAIT_MS_MAX);
        consumer.shutdown();
        List<String> after = World.sendRoundQueues(producer, topic, "after", 8);
        Inbox second = new Inbox();
        world.consumer(group, topic, second);
        second.waitForExactly(after);
    }

    @SuppressWarnings("deprecation")
    private static void byTime(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        World.sendRoundQueues(producer, topic, "m", 3);
        MessageQueue queue = World.queues(producer, topic).get(0);
        DefaultMQPullConsumer consumer = world.pullConsumer(world.name("searchers"));
        long storedMs = PullScenarios.messages(consumer, queue, "*").get(0).getStoreTimestamp();
        Check.same(0L, consumer.searchOffset(queue, storedMs - 1), "offset before the first message");
        Check.same(0L, consumer.searchOffset(queue, storedMs), "offset at the first message");
        Check.same(3L, consumer.searchOffset(queue, storedMs + 3_600_000), "offset after the last message");
        Check.same(storedMs, consumer.earliestMsgStoreTime(queue), "store time of the first message");
    }
}
