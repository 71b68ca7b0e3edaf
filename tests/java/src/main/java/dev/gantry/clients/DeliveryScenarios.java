package dev.gantry.clients;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.IntSummaryStatistics;
import java.util.List;
import java.util.Map;
import java.util.Set;

import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageQueue;

/** What push consumers are promised: shares of a group, broadcast, tag filters, delays. */
final class DeliveryScenarios {
    private static final int CONSUMERS = 3;
    private static final int MESSAGES = 9;

    private DeliveryScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("three_consumers_of_a_group_get_a_third_each", DeliveryScenarios::shares);
        all.put("broadcast_gives_every_consumer_everything", DeliveryScenarios::broadcast);
        all.put("tag_expression_lets_only_its_tags_through", DeliveryScenarios::tags);
        all.put("waiting_consumer_gets_new_messages_at_once", DeliveryScenarios::longPolling);
        all.put("delayed_message_does_not_arrive_early", DeliveryScenarios::delayed);
    }

    private static void shares(World world) throws Exception {
        String topic = world.topic(MESSAGES);
        List<DefaultMQPushConsumer> consumers = new ArrayList<>();
        List<Inbox> inboxes = new ArrayList<>();
        String group = world.name("sharers");
        for (int i = 0; i < CONSUMERS; i++) {
            inboxes.add(new Inbox());
            consumers.add(world.consumer(group, topic, inboxes.get(i)));
            // One after the other: a consumer that still takes queues for a smaller group holds a third on the way.
            Check.until("the consumers share all queues evenly",
                () -> isShared(World.queuesHeld(consumers, topic)), () -> World.queuesHeld(consumers, topic));
        }
        List<String> sent = World.sendRoundQueues(world.producer(), topic, "m", MESSAGES);
        List<String> received = new ArrayList<>();
        for (Inbox inbox : inboxes) {
            inbox.waitFor(MESSAGES / CONSUMERS);
        }
        for (Inbox inbox : inboxes) {
            Check.same(MESSAGES / CONSUMERS, inbox.size(), "messages of one consumer");
            received.addAll(inbox.bodies());
        }
        Collections.sort(received);
        Check.same(sent, received, "messages of all consumers");
    }

    /** Whether every queue is in one of the sets, and none holds two more than another. */
    private static boolean isShared(List<Set<MessageQueue>> held) {
        IntSummaryStatistics sizes = held.stream().mapToInt(Set::size).summaryStatistics();
        long queues = held.stream().flatMap(Set::stream).distinct().count();
        return queues == MESSAGES && sizes.getSum() == MESSAGES && sizes.getMax() - sizes.getMin() <= 1;
    }

    /** The enum lies in another package in each version, so it is reached through its value. */
    @SuppressWarnings("static")
    private static void setBroadcast(DefaultMQPushConsumer consumer) {
        consumer.setMessageModel(consumer.getMessageModel().valueOf("BROADCASTING"));
    }

    private static void broadcast(World world) throws Exception {
        String topic = world.topic(MESSAGES);
        List<Inbox> inboxes = new ArrayList<>();
        for (int i = 0; i < CONSUMERS; i++) {
            Inbox inbox = new Inbox();
            DefaultMQPushConsumer consumer = world.consumer(world.name("listeners"));
            setBroadcast(consumer);
            consumer.subscribe(topic, "*");
            consumer.registerMessageListener(inbox);
            world.start(consumer);
            Check.until("a broadcast consumer holds all queues",
                () -> World.queuesHeld(consumer, topic).size() == MESSAGES, () -> World.queuesHeld(consumer, topic));
            inboxes.add(inbox);
        }
        List<String> sent = World.sendRoundQueues(world.producer(), topic, "m", MESSAGES);
        for (Inbox inbox : inboxes) {
            inbox.waitForExactly(sent);
        }
    }

    private static void tags(World world) throws Exception {
        String topic = world.topic(2);
        DefaultMQProducer producer = world.producer();
        for (String tag : Arrays.asList("TagA", "TagB", "TagC", "TagB", "TagA")) {
            World.send(producer, World.message(topic, tag, tag));
        }
        World.send(producer, World.message(topic, "TagC", "last"));
        Inbox inbox = new Inbox();
        DefaultMQPushConsumer consumer = world.consumer(world.name("choosers"));
        consumer.subscribe(topic, "TagA || TagC");
        consumer.registerMessageListener(inbox);
        world.start(consumer);
        inbox.waitFor(4);
        List<String> received = inbox.bodies();
        Collections.sort(received);
        Check.same(Arrays.asList("TagA", "TagA", "TagC", "last"), received, "bodies received");
    }

    /** A held pull is answered by the send: 20 messages in turn would else take a poll interval each. */
    private static void longPolling(World world) throws Exception {
        String topic = world.topic(1);
        Inbox inbox = new Inbox();
        world.consumer(world.name("waiters"), topic, inbox);
        DefaultMQProducer producer = world.producer();
        for (int i = 0; i < 20; i++) {
            World.send(producer, World.message(topic, "TagA", "m-" + i));
            inbox.waitFor(i + 1);
            Check.same("m-" + i, inbox.bodies().get(i), "message " + i);
        }
    }

    private static void delayed(World world) throws Exception {
        String topic = world.topic(1);
        Inbox inbox = new Inbox();
        world.consumer(world.name("delayed"), topic, inbox);
        Message message = World.message(topic, "TagA", "later");
        message.setDelayTimeLevel(1);
        DefaultMQProducer producer = world.producer();
        long sentMs = System.currentTimeMillis();
        World.send(producer, message);
        inbox.waitFor(1);
        Inbox.Arrival arrival = inbox.all().get(0);
        Check.same(topic, arrival.message.getTopic(), "topic of the delayed message");
        Check.same("later", arrival.body(), "body of the delayed message");
        long afterMs = arrival.atMs - sentMs;
        Check.that(afterMs >= 1_000, "level 1 is one second, the message came after " + afterMs + " ms");
    }
}
